"""Weights as ONNX: what a runtime without torch finds is what torch finds, at any size of slice."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from chslib.network import build_network
from chslib.pretrained import DEFAULT, load_pretrained, read_weights
from replication.cli import main
from replication.data.fusing.preparation import minmax_clahe
from replication.data.phantom.volumes import make_volume
from replication.scans.onnx_export import to_onnx


@pytest.mark.parametrize("name", [DEFAULT, "cpu/table2-lungs"])
def test_logits_and_masks_are_torch_s_at_any_size(name: str, tmp_path, capsys) -> None:
    assert main(["weights", "export", str(tmp_path), "--onnx", "--weights", name]) == 0
    network, sidecar = load_pretrained(name), read_weights(name)[1]
    side = sidecar["record"]["config"]["size"]
    drawn = make_volume(name="coronacases_001", seed=0, size=side, depth=4)
    slices = minmax_clahe(np.rot90(drawn.ct[..., 2]), size=side)[None, None] / np.float32(255)
    stages = {name: network}
    if sidecar["first_stage"]:
        stages = {f"{sidecar['profile']}/{sidecar['first_stage']}": network.lungs, name: network.infection}
    written = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert written == [str(tmp_path / f"{of}.onnx") for of in stages]
    for of, stage in stages.items():
        content = (tmp_path / f"{of}.onnx").read_bytes()
        session = onnxruntime.InferenceSession(content)
        for x in (slices, np.random.default_rng(0).random((2, 1, 48, 32), np.float32)):  # a bottleneck of 3x2
            with torch.inference_mode():
                logits = stage(torch.from_numpy(x)).numpy()
            found = session.run(None, {"slices": x})[0]
            np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4)
            assert ((found > 0) != (logits > 0)).mean() <= 1e-5
        told = {p.key: p.value for p in onnx.load_from_string(content).metadata_props}
        own = read_weights(of)[1]
        assert {k: told[k] for k in ("name", "sha256", "licence", "preparation")} == {
            "name": of, "sha256": own["sha256"], "licence": own["licence"], "preparation": own["preparation"],
        }  # fmt: skip
        assert "not for diagnosis" in told["use"] and told["size"] == str(side)
        assert len(content) < 1.1 * (2 * sum(p.numel() for p in stage.state_dict().values()) + 200_000)


def test_what_cannot_be_written_is_refused(tmp_path, capsys) -> None:
    with pytest.raises(ValueError, match="only networks of residual inception blocks"):
        to_onnx(build_network("bu").eval(), about={})
    with pytest.raises(ValueError, match="no half-precision numbers"):
        to_onnx(build_network().eval(), about={})
    assert main(["weights", "export", str(tmp_path), "--onnx", "--weights", "nobody"]) == 1
    assert "No weights 'nobody'" in capsys.readouterr().err
