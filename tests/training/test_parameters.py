"""A notebook's parameters are checked by name, type and choice before anything runs."""

import pytest

from replication.parameters import check_parameters

DECLARED = '# Parameters\nrun: str = "a"  # which\nepochs: int = 3\nrate: float = 0.1\nquick: bool = False\n'


def notebook(injected: str | None = None, declared: str = DECLARED) -> dict:
    namespace: dict = {"In": ["", declared]}
    exec(declared, namespace)
    if injected is not None:
        namespace["In"].append("# Parameters\n" + injected)
        exec(injected, namespace)
    namespace["In"].append("check_parameters(globals())")
    namespace["later"] = "a variable of the reader's own"
    return namespace


def test_good_parameters_pass():
    check_parameters(notebook(), run=["a", "b"])
    check_parameters(notebook('run = "b"\nepochs = 5\nrate = 1\nquick = True'), run=["a", "b"])


@pytest.mark.parametrize(
    "injected, message",
    [
        ('rnu = "b"', r"unknown parameter 'rnu'; expected one of run, epochs, rate, quick"),
        ('epochs = "5"', r"parameter epochs = '5' is a str; expected int"),
        ("epochs = 2.5", r"parameter epochs = 2.5 is a float; expected int"),
        ("epochs = True", r"parameter epochs = True is a bool; expected int"),
        ("rate = None", r"parameter rate = None is a NoneType; expected float"),
        ('run = "c"', r"parameter run = 'c'; expected one of 'a', 'b'"),
    ],
)
def test_a_bad_parameter_is_named(injected, message):
    with pytest.raises(ValueError, match=message):
        check_parameters(notebook(injected), run=["a", "b"])


def test_everything_wrong_is_told_at_once():
    with pytest.raises(ValueError) as told:
        check_parameters(notebook('x = 1\nepochs = "5"\nrun = 2'), run=["a"])
    assert str(told.value).count("\n") == 2


def test_without_a_parameters_cell_it_says_so():
    with pytest.raises(ValueError, match="No parameters cell"):
        check_parameters({"In": ["", "x = 1"]})


def test_without_history_the_types_and_choices_are_still_checked():
    namespace = notebook()
    namespace["In"] = [""]
    check_parameters(namespace, run=["a"])
    namespace["epochs"] = "5"
    with pytest.raises(ValueError, match="parameter epochs = '5' is a str"):
        check_parameters(namespace)


def test_a_rerun_of_the_declaring_cell_forgets_what_was_injected():
    namespace = notebook("typo = 1")
    namespace["In"].append(DECLARED)
    check_parameters(namespace)
