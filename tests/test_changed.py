"""What a change can break, by the imports of this package and its tests."""

from changed import ROOT, distances


def test_the_nearest_tests_are_those_that_import_the_change() -> None:
    found = distances([ROOT / "routerbench/report/tables/latex.py"])
    assert min(found, key=lambda test: found[test]) == ROOT / "tests/report/tables/test_latex.py"
    # The page imports it over two modules; the statistics, which it rests on, are not changed by it.
    assert found[ROOT / "tests/report/test_write.py"] > 1
    assert ROOT / "tests/stats/test_paired.py" not in found


def test_a_router_that_only_a_configuration_names_reaches_what_builds_it() -> None:
    assert ROOT / "tests/test_build.py" in distances([ROOT / "routerbench/routers/soft.py"])


def test_what_is_shared_by_a_folder_reaches_its_tests_and_no_others() -> None:
    found = distances([ROOT / "tests/overview/conftest.py"])
    assert {test.parent.name for test in found} == {"overview"}


def test_a_file_that_is_no_python_reaches_the_tests_that_name_it() -> None:
    assert ROOT / "tests/test_new_router.py" in distances([ROOT / "docs/new-router.md"])
