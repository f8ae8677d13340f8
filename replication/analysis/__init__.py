"""What a chapter computes and another one uses: the leak, patients, thresholds, lesions, why numbers differ."""
