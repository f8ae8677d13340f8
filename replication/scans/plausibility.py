"""Whether what was found can be: volumes that a body can have, in words where they are others.

An adult's lungs hold at most 7.99 h - 7.08 litres (men) or 6.60 h - 5.79 (women), with a residual standard deviation of
0.70 and 0.60, and after breathing out still 1.31 h + 0.022 a - 1.23 or 1.81 h + 0.016 a - 2.00, with 0.41 and 0.35 (h in
metres, a in years; after Quanjer et al. 1993, doi 10.1183/09041950.005s1693). So 19 of 20 men of 2.10 m hold less than 10.9 l, and
19 of 20 women of 1.50 m and 25 years keep more than 0.5 l.
"""

MOST, LEAST = 11_000.0, 500.0  # ml of both lungs, as the scan may have caught them
FULL = 0.8  # share of a scan's voxels that lungs do not fill, whatever the field of view
CONSUMED = 0.95  # share of the lungs above which nobody breathes
LEARNT = {"lungs": 0.7, "infection": 0.2}  # Dice coefficient on own test slices: less is next to nothing

CAUSES = "weights that learnt nothing, a wrong preparation, a wrong spacing in the header, or no chest"


def implausible(
    *, lungs_ml: float, infection_ml: float, scan_ml: float, dsc: dict[str, float | None]
) -> list[str]:
    """What cannot be, or hardly, a line each.

    Args:
        lungs_ml, infection_ml: of the masks; scan_ml: of all voxels.
        dsc: of `lungs` and `infection`, what the weights reach on their own test slices; None: not known.
    """
    out = []
    if lungs_ml > FULL * scan_ml:
        out.append(f"{lungs_ml / scan_ml:.0%} of all voxels are called lung: {CAUSES}")
    elif lungs_ml > MOST:
        out.append(f"lungs of {lungs_ml / 1000:.0f} l; no body has more than {MOST / 1000:.0f}: {CAUSES}")
    elif 0 < lungs_ml < LEAST:
        out.append(
            f"lungs of {lungs_ml:.0f} ml; an adult keeps {LEAST:.0f} after breathing out: a child, part of a chest, or lungs "
            "that were missed"
        )
    if lungs_ml and infection_ml > CONSUMED * lungs_ml:
        out.append(f"{infection_ml / lungs_ml:.0%} of the lungs are called infected: {CAUSES}")
    out += [
        f"the weights reach a Dice coefficient of {score:.2f} for {target} on their own test slices: they learnt next to nothing"
        for target, score in dsc.items()
        if score is not None and score < LEARNT[target]
    ]
    return out
