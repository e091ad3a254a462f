"""Plug-ins by file and by entry point: what they give, what a broken one says, and what of them a run keeps on record."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imfbench import plugins
from imfbench.cli import main
from imfbench.config import load
from imfbench.config_file import ConfigError
from imfbench.doctor import _plugins as look_at_plugins
from imfbench.plugins import GROUP, PluginWarning, load_file, source_of
from imfbench.registry import METHODS, METRICS, UnknownNameError

pytestmark = pytest.mark.usefixtures("fresh_plugins")

WORKS = '''
from imfbench.registry import METRICS, REPORTS

@METRICS.register("loudness-of-mine")
class Loudness:
    """How loud it is."""

REPORTS.add("report-of-mine", "no_such_package_anywhere:Report")
'''


def imfbench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def plugin(folder: Path, text: str, name: str = "mine.py") -> Path:
    file = folder / name
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_takes_plugins_before_and_after_its_name(name: str, tmp_path: Path) -> None:
    for owner in (main, main.commands[name]):
        assert [o.opts for o in owner.params].count(["--plugin"]) == 1
    absent = tmp_path / "absent.py"
    for arguments in (["--plugin", str(absent), name], [name, "--plugin", str(absent)]):
        result = imfbench(*arguments)
        assert result.exit_code == 2
        assert f"'{absent}' does not exist" in result.output.replace("\n", " ")


def test_what_a_file_registers_is_listed(tmp_path: Path) -> None:
    first = plugin(tmp_path, WORKS)
    second = plugin(tmp_path, WORKS.replace("of-mine", "of-another"), "other.py")
    result = imfbench("--plugin", first, "list", "metrics", "--plugin", second, "--plugin", first)
    assert result.exit_code == 0
    assert "loudness-of-mine         How loud it is." in result.output
    assert "loudness-of-another      How loud it is." in result.output
    assert len(plugins.plugins()) == 2
    assert "cannot be imported: No module named 'no_such_package_anywhere'" in imfbench("list", "reports").output


@pytest.mark.parametrize(
    ("text", "line", "error"),
    [
        ("import imfbench\n\nbad = no_such_name\n", 3, "NameError: name 'no_such_name' is not defined"),
        ("def broken(:\n", 1, "SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("from imfbench.registry import METRICS\nMETRICS.add('wer', 'a:b')\n", 2, "'wer' is already registered"),
        ("from imfbench.method import Methods\n", 1, "ImportError: cannot import name 'Methods'"),
    ],
)
def test_a_broken_file_is_a_warning_with_file_and_line(text: str, line: int, error: str, tmp_path: Path) -> None:
    file = plugin(tmp_path, text)
    result = imfbench("list", "metrics", "--plugin", file)
    assert result.exit_code == 0
    assert "wer " in result.output
    assert f"imfbench: warning: plug-in {file} was left out, its import failed: line {line}: " in result.output
    assert error in result.output
    assert "Mend the file" in result.output
    assert "Traceback" not in result.output
    assert "registry.py" not in result.output


def test_a_broken_plugin_is_left_out_whole(tmp_path: Path) -> None:
    with pytest.warns(PluginWarning, match="line 9"):
        load_file(plugin(tmp_path, WORKS + "fails\n"))
    assert "loudness-of-mine" not in METRICS
    assert source_of("metric", "loudness-of-mine") is None


def test_other_processes_are_not_given_a_broken_plugin(tmp_path: Path) -> None:
    works = plugin(tmp_path, WORKS)
    with pytest.warns(PluginWarning):
        load_file(plugin(tmp_path, "fails\n", "broken.py"))
    load_file(works)
    assert plugins.files() == (works,)


def test_another_process_does_not_warn_again_of_an_installed_plugin(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        plugins.told_elsewhere()
        assert load_file(plugin(tmp_path, "fails\n")).error
    assert told == []


def test_what_a_plugin_asks_for_stays_when_it_breaks(tmp_path: Path) -> None:
    text = "from imfbench.registry import METHODS\nMETHODS.get('meanflow')\nfails\n"
    with pytest.warns(PluginWarning):
        load_file(plugin(tmp_path, text))
    assert METHODS.get("meanflow").kind == "average"


def test_a_name_of_a_broken_plugin_says_so(tmp_path: Path) -> None:
    file = plugin(tmp_path, WORKS + "fails\n")
    unrelated = plugin(tmp_path, "fails\n", "other.py")
    setting = "metrics=[loudness-of-mine]"
    result = imfbench("run", "quickstart", "--set", setting, "--plugin", file, "--plugin", unrelated)
    assert result.exit_code == 2
    last = result.output.splitlines()[-1]
    assert "unknown metric 'loudness-of-mine': it stands in a plug-in that was left out" in last
    assert f"{file} (line 9: NameError" in last
    assert str(unrelated) not in last
    with pytest.raises(UnknownNameError, match=r"did you mean 'meanflow'.* Or it is of a plug-in that was left out"):
        METHODS.get("meanflo")


def test_two_files_of_one_name_and_the_same_file_twice(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one = load_file(plugin(tmp_path, WORKS))
    other = load_file(plugin(tmp_path / "a", WORKS.replace("of-mine", "of-another")))
    assert {"loudness-of-mine", "loudness-of-another"} <= {*METRICS}
    assert load_file(tmp_path / "a" / ".." / "mine.py") is one
    assert one is not other


def test_the_record_of_a_plugin_has_its_sha256_and_names(tmp_path: Path) -> None:
    file = plugin(tmp_path, WORKS)
    assert load_file(file).record() == {
        "plugin": str(file),
        "package": None,
        "sha256": hashlib.sha256(WORKS.encode()).hexdigest(),
        "gives": ["metric loudness-of-mine", "report report-of-mine"],
        "error": None,
    }


def test_an_installed_plugin_is_found_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(tmp_path, WORKS, "installed_plugin_of_mine.py")
    plugin(tmp_path, "\nfails\n", "broken_plugin_of_mine.py")
    monkeypatch.syspath_prepend(tmp_path)
    points = [metadata.EntryPoint(n, f"{n}_plugin_of_mine", GROUP) for n in ("installed", "broken")]
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: points if group == GROUP else [])
    try:
        with pytest.warns(
            PluginWarning, match=r"plug-in 'broken' \(broken_plugin_of_mine\) was left out.*line 2: NameErr"
        ):
            assert "loudness-of-mine" in METRICS
        found = source_of("metric", "loudness-of-mine")
        assert found is not None
        assert found.sha256 == hashlib.sha256(WORKS.encode()).hexdigest()
        assert [(f.level, f.subject) for f in look_at_plugins()] == [
            ("ok", "plug-in 'installed' (installed_plugin_of_mine)"),
            ("note", "plug-in 'broken' (broken_plugin_of_mine)"),
        ]
    finally:
        for point in points:
            sys.modules.pop(point.module, None)


def test_an_installed_plugin_whose_file_cannot_be_read_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = plugin(tmp_path, WORKS, "locked_plugin_of_mine.py")
    monkeypatch.syspath_prepend(tmp_path)
    point = metadata.EntryPoint("locked", "locked_plugin_of_mine", GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [point] if group == GROUP else [])

    def denied(path: Path, *_: object, **__: object) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))  # which root is not told by a file's mode

    monkeypatch.setattr(Path, "read_bytes", denied)
    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.warns(PluginWarning, match="plug-in 'locked' .locked_plugin_of_mine. was left out") as told:
        assert "loudness-of-mine" not in METRICS
    assert f"its import failed: ImportError: {file} cannot be read (Permission denied). Repair it" in str(
        told[0].message
    )
    with pytest.raises(UnknownNameError, match=r"it is of a plug-in that was left out, 'locked'"):
        METRICS.get("loudness-of-mine")


def test_plugins_of_installed_packages_come_with_every_command_of_a_fresh_process(tmp_path: Path) -> None:
    """Two packages as pip leaves them, one of which is broken."""
    for name, text in (("good", WORKS), ("bad", "\nfails\n")):
        plugin(tmp_path, text, f"{name}_plugin_of_mine.py")
        about = tmp_path / f"{name}_of_mine-1.2.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-of-mine\nVersion: 1.2\n")
        (about / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {name}_plugin_of_mine\n")
    command = [sys.executable, "-m", "imfbench", "list", "metrics"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "loudness-of-mine         How loud it is." in found.stdout
    assert "plug-in 'bad' (bad_plugin_of_mine) was left out, its import failed: line 2: NameError" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("METRICS.add(5, object)", "the name of a metric is a text, not 5"),
        ("METRICS.add('zz', 5)", "metric 'zz' is a class or a function, not 5"),
    ],
)
def test_what_cannot_be_registered_is_left_out_whole(line: str, told: str, tmp_path: Path) -> None:
    plugin = tmp_path / "odd.py"
    plugin.write_text(f"from imfbench.registry import METRICS\n{line}\n")
    with pytest.warns(PluginWarning, match=told):
        load_file(plugin)
    assert all(isinstance(name, str) for name in METRICS.names())
    assert "zz" not in METRICS


def test_a_method_without_settings_is_told_with_its_name(tmp_path: Path) -> None:
    plugin = tmp_path / "bare.py"
    plugin.write_text("from imfbench.registry import METHODS\n@METHODS.register('bare')\nclass Bare: pass\n")
    load_file(plugin)
    path = tmp_path / "mine.yaml"
    path.write_text("systems: [{method: bare, nfe: 1}]\n")
    with pytest.raises(ConfigError, match="the method 'bare' has no class `Config` of its settings"):
        load(str(path))
