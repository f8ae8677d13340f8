"""A record that is not what it says feeds no table."""

import re

import pytest
from made_up import RUN, a_record, signed, write

from replication.evidence.ledger import ledger
from replication.evidence.records import KNOWN_DATA, first_stage_warning, load_records, read_record
from replication.evidence.tables import table


def test_a_good_record_is_accepted_with_and_without_digest(tmp_path):
    for schema in (1, 2):
        assert read_record(write(tmp_path, a_record(schema=schema)))["schema"] == schema
    for run in ("table3-miniseg", "alt-doubling-lungs", "alt-concat-infection-seed1", "table5-rib-infection"):
        assert read_record(write(tmp_path, a_record(run)))
    assert read_record(write(tmp_path, a_record(profile="smoke")))


CHANGES = [
    (lambda r: r["test"]["pooled"].update(dsc=0.99), "pooled dsc is 0.99 but its own counts give 0.9"),
    (lambda r: r["test"]["per_slice"]["dsc"].update(std=0.0), "per_slice dsc std is 0 but"),
    (lambda r: r["test"]["per_patient"]["ji"].update(mean=0.5), "per_patient ji mean is 0.5 but"),
    (lambda r: r["test"]["patients"]["a"].update(recall=1.0), "patients a recall is 1 but"),
    (lambda r: r["test"]["confusion"].update(fp=0), "confusion fp is 0 but"),
    (lambda r: r["test"]["pooled"].pop("dsc"), "entries, expected"),
    (lambda r: r["test"]["pooled"].update(dsc="0.9"), "part of it is missing or of another kind"),
    (lambda r: r["slices"][0].__setitem__(4, 1), r"the counts of slice a_000 add up to \d+ pixels, expected 16384"),
    (lambda r: r["slices"][0].__setitem__(1, -5), "four whole numbers"),
    (lambda r: r["slices"].pop(), "counts of 2 slices, its test part has 3"),
    (lambda r: r["slices"].__setitem__(1, r["slices"][0]), "counts of 2 slices"),
    (lambda r: r["data"].update(slices=11), "parts of 10 slices together, its store has 11"),
    (lambda r: r["data"]["split"]["train"]["patients"].append("a"), "patient a is tested and trained on"),
    (lambda r: r["config"].update(size=256), "size=256, the cpu profile's .* has 128"),
    (lambda r: r["config"].update(batch_size=1), "batch_size=1"),
    (lambda r: r["config"].update(learning_rate=0.1), "learning_rate=0.1"),
    (lambda r: r["config"].update(max_epochs=50), "max_epochs=50"),
    (lambda r: r["config"].update(patience=1), "patience=1"),
    (lambda r: r["config"].update(arm="bu"), "arm='bu'"),
    (lambda r: r["config"].update(target="infection"), "target='infection'"),
    (lambda r: r["config"].update(protocol="slice"), "protocol='slice'"),
    (lambda r: r["config"].update(fold=1), "fold=1"),
    (lambda r: r["config"].update(seed=1), "seed=1"),
    (lambda r: r["config"].update(first_stage="x"), "first_stage='x'"),
    (lambda r: r["config"].update(cascade="truth"), "cascade='truth'"),
    (lambda r: r["config"].update(network={"gate": "relu"}), "network="),
    (lambda r: r["config"].update(widths=[1, 2]), r"widths=\[1, 2\]"),
    (lambda r: r["config"].update(profile="paper"), "profile='paper'"),
    (lambda r: r["config"].pop("patience"), "part of it is missing"),
    (lambda r: r["config"].update(data_fingerprint="0"), "two fingerprints"),
    (lambda r: r["fit"].update(epochs=9), "best epoch 1 of 9, at most 3"),
    (lambda r: r["fit"].update(best_epoch=0), "best epoch 0 of 2"),
    (lambda r: r.update(first_stage={"run": "table2-lungs"}), "fed by table2-lungs, the grid says None"),
    (lambda r: r.update(schema=3), "schema 3"),
    (lambda r: r.update(profile="paper"), "may not be renamed"),
    (lambda r: r.update(run="table2-lungs"), "may not be renamed"),
    (lambda r: r.pop("slices"), "lacks slices"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_record_that_is_not_what_it_says_is_refused(tmp_path, change, message):
    record = a_record()
    change(record)
    path = write(tmp_path, signed(record), profile="cpu", name=RUN)  # even where the digest was made to fit
    with pytest.raises(ValueError, match=message):
        read_record(path)
    accepted, refused = load_records(tmp_path, "cpu")
    assert accepted == {} and re.search(message, refused[RUN]) and str(tmp_path) not in refused[RUN]


def test_any_change_behind_the_digest_is_noticed(tmp_path):
    for change in ({"device": "GPU"}, {"digest": "0" * 64}, {"evaluation": {}}):
        with pytest.raises(ValueError, match="digest"):
            read_record(write(tmp_path, a_record() | change))
    record = a_record()
    del record["digest"]
    with pytest.raises(ValueError, match="digest"):
        read_record(write(tmp_path, record))


def test_scores_hold_together_where_slice_names_do_not_tell_the_patient(tmp_path):
    record = a_record()
    for i, row in enumerate(record["slices"]):
        row[0] = f"slice{i}"
    read_record(write(tmp_path, signed(record)))
    record["test"]["per_patient"]["dsc"]["mean"] += 0.01
    with pytest.raises(ValueError, match="per_patient dsc mean"):
        read_record(write(tmp_path, signed(record)))
    record["test"]["patients"]["z"] = record["test"]["patients"].pop("a")
    with pytest.raises(ValueError, match="not those of its test part"):
        read_record(write(tmp_path, signed(record)))


def test_a_broken_missing_or_foreign_file_is_named_and_never_raises_in_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such record"):
        read_record(tmp_path / "cpu" / "x.json")
    write(tmp_path, a_record("table2-lungs"))
    write(tmp_path, a_record()).write_text("{")
    write(tmp_path, a_record("table4-bu")).write_text("[1]")
    write(tmp_path, a_record("table2-lungs") | {"run": "table5-full-lungs"})
    write(tmp_path, a_record("table2-lungs") | {"run": "table9"})
    write(tmp_path, a_record("table4-rib", profile="smoke"), profile="cpu")
    accepted, refused = load_records(tmp_path, "cpu")
    assert list(accepted) == ["table2-lungs"]
    assert {name: why.split(";")[0] for name, why in refused.items()} | {RUN: ""} == {
        RUN: "",
        "table4-bu": "the record lacks everything",
        "table4-rib": "the record says it is smoke/table4-rib",
        "table5-full-lungs": refused["table5-full-lungs"].split(";")[0],
        "table9": refused["table9"].split(";")[0],
    }
    assert "not JSON" in refused[RUN]
    whys = {"table5-full-lungs": "the same training as table2-lungs", "table9": "no run of the grid"}
    for name, why in whys.items():
        with pytest.raises(ValueError, match=why):
            read_record(write(tmp_path, signed(a_record("table2-lungs") | {"run": name})))
    with pytest.raises(ValueError, match="'tiny'.*smoke, cpu, paper"):
        load_records(tmp_path, "tiny")


def test_records_of_other_data_are_refused(tmp_path):
    for run, data in (("table2-lungs", "a"), ("table4-bu", "b"), ("table4-rib", "b")):
        write(tmp_path, a_record(run, data=data * 64))
    assert list(load_records(tmp_path, "cpu")[0]) == ["table4-bu", "table4-rib"]  # the majority
    (tmp_path / "cpu" / "table4-rib.json").unlink()
    accepted, refused = load_records(tmp_path, "cpu")  # even: the headline's
    assert list(accepted) == ["table2-lungs"]
    assert (
        refused["table4-bu"] == f"of other data: fingerprint {'b' * 12}, the other records are of {'a' * 12}"
    )
    accepted, refused = load_records(tmp_path, "cpu", data="b" * 64)
    assert list(accepted) == ["table4-bu"] and f"expected {'b' * 12}" in refused["table2-lungs"]


def test_the_project_s_own_results_must_be_of_known_data(tmp_path):
    results = tmp_path / "results"
    write(results, a_record("table2-lungs"))
    write(results, a_record("table2-lungs", profile="smoke"))
    assert load_records(results, "cpu")[0]  # some folder called results
    (tmp_path / "_toc.yml").touch()
    assert "KNOWN_DATA" in load_records(results, "cpu")[1]["table2-lungs"]
    assert load_records(results, "smoke")[0]
    write(results, a_record("table2-lungs", data=next(iter(KNOWN_DATA))))
    assert load_records(results, "cpu")[0]


def test_a_second_stage_fed_by_other_weights_is_told_of(tmp_path):
    first, second = "table2-lungs", "table2-infection"
    for run in (first, second):
        write(tmp_path, a_record(run))
    assert first_stage_warning(second, load_records(tmp_path, "cpu")[0]) == ""
    write(tmp_path, signed(a_record(first) | {"weights_sha256": "others"}))
    accepted = load_records(tmp_path, "cpu")[0]
    assert "other weights" in first_stage_warning(second, accepted) and not first_stage_warning(
        first, accepted
    )
    assert "other weights" in table(2, tmp_path).loc[("COVID-19", "ours, random slices, 1 seed"), "records"]
    assert "other weights" in ledger(tmp_path).set_index("id").loc["t2-infection-dsc", "warning"]
