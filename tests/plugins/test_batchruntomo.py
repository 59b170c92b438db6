"""The pipeline ``batchruntomo`` by itself: conformance, arguments, environment, what it asks and refuses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from plugins.conformance_pipelines import CONTEXT, PLACEMENT, PipelineConformance, make_end, make_series
from plugins.replaying import OPTIONS
from tiltd.daemon.core.model import Options, Outcome, Placement, Step, TiltSeries
from tiltd.plugins.api import Permanent
from tiltd.plugins.batchruntomo import BatchruntomoPipeline, tomogram_name
from tiltd.plugins.imod.settings import ImodSettings
from tiltd.plugins.imod.steps import ENTER, cpus, entered

PIPELINE = BatchruntomoPipeline({"imod": {"dir": "/opt/imod"}}, CONTEXT)
THICK: dict[str, Any] = OPTIONS | {"comparam.tilt.tilt.THICKNESS": 300}


class TestConformance(PipelineConformance):
    @pytest.fixture
    def pipeline(self) -> BatchruntomoPipeline:
        return PIPELINE

    @pytest.fixture
    def options(self) -> Options:
        return dict(THICK)


def steps_of(placement: Placement = PLACEMENT, **options: Any) -> dict[str, Step]:
    answer = PIPELINE.steps(make_series(), THICK | options, placement)
    return {step.name: step for step in answer.steps}


def words(step: Step) -> tuple[str, ...]:
    """The program's own arguments."""
    return step.argv[step.argv.index("batchruntomo") :]


def test_directives_are_validated_before_anything_is_moved() -> None:
    steps = steps_of()
    assert list(steps) == ["validate", "batchruntomo", "bundle"]
    assert words(steps["validate"]) == ("batchruntomo", "-validation", "1", "{input}/batch.adoc")
    assert steps["validate"].success_pattern == "^Directives all seem OK"


def test_the_run_works_on_the_jobs_own_copy_under_a_safe_name() -> None:
    argv = words(steps_of()["batchruntomo"])
    told = dict(zip(argv[1::2], argv[2::2], strict=True))
    assert (told["-ro"], told["-current"], told["-deliver"]) == ("stack", "{input}", "{input}/sets")
    assert (told["-directive"], told["-check"]) == ("{input}/batch.adoc", "{input}/quit")
    series = make_series(name="-rf $(touch x) \udcff")
    files = {file.name: file.text for file in PIPELINE.steps(series, THICK, PLACEMENT).files}
    assert "setupset.copyarg.name = stack" in files["batch.adoc"] and "touch" not in str(files["batch.adoc"])


@pytest.mark.parametrize(
    ("nodes", "cores", "expected"),
    [
        (("n1",), 1, ()),
        (("n1",), 2, ("-cpus", "2")),
        (("n1",), 64, ("-cpus", "64")),
        (("n1",), 500, ("-cpus", "128")),
        (("n1", "n2"), 4, ("-cpus", "n1#4,n2#4")),
        (("n1", "n2"), 1, ("-cpus", "n1,n2")),
    ],
)
def test_cpus_are_left_out_for_one_core(
    nodes: tuple[str, ...], cores: int, expected: tuple[str, ...]
) -> None:
    assert cpus(replace(PLACEMENT, nodes=nodes, cores=cores)) == expected


def test_a_nodes_name_that_would_be_read_as_something_else_is_refused() -> None:
    with pytest.raises(Permanent, match="cannot stand in a list of machines"):
        cpus(replace(PLACEMENT, nodes=("n1", "n2#3"), cores=4))


def test_without_fiducials_it_gets_one_core() -> None:
    options: dict[str, Any] = {"runtime.Fiducials.any.fiducialless": 1}
    assert "-cpus" in words(steps_of()["batchruntomo"])
    assert "-cpus" not in words(steps_of(**options)["batchruntomo"])
    assert PIPELINE.request(make_series(), THICK | options).cores == 1


def test_tilt_angles_are_written_from_the_mdoc() -> None:
    files = {file.name: file.text for file in PIPELINE.steps(make_series(), THICK, PLACEMENT).files}
    angles = [float(line) for line in files["stack.rawtlt"].splitlines()]
    assert angles == list(make_series().tilt_angles_deg)


def test_the_size_of_the_tomogram_is_expected_where_it_is_known() -> None:
    (known,) = PIPELINE.steps(make_series(), THICK, PLACEMENT).results
    assert (known.name, known.image_size) == ("TS_01.rec", (1024, 1024, 300))
    trimmed: dict[str, Any] = {"runtime.Trimvol.any.sizeX": 800}
    (unknown,) = PIPELINE.steps(make_series(), THICK | trimmed, PLACEMENT).results
    assert unknown.image_size is None
    binned: dict[str, Any] = {"runtime.AlignedStack.any.binByFactor": 2}
    (half,) = PIPELINE.steps(make_series(), THICK | binned, PLACEMENT).results
    assert half.image_size == (512, 512, 150)


@pytest.mark.parametrize(
    ("name", "expected"), [("TS 01", "TS_01.rec"), ("é\n", "tomogram.rec"), ("a/b", "a_b.rec")]
)
def test_the_safe_name_is_mapped_back(name: str, expected: str) -> None:
    assert tomogram_name(name) == expected


def test_what_cannot_work_is_refused_before_it_is_submitted() -> None:
    without = {key: value for key, value in THICK.items() if "seedingMethod" not in key}
    with pytest.raises(Permanent, match="seedingMethod"):
        PIPELINE.request(make_series(), without)
    with pytest.raises(Permanent, match="at least 3 tilt angles"):
        PIPELINE.request(make_series(tilt_angles_deg=(0.0, 3.0)), THICK)
    with pytest.raises(Permanent, match="residual_bad_px"):
        BatchruntomoPipeline({"residual_bad": 1.0}, CONTEXT)


def test_limits_of_quality_are_options() -> None:
    figures = {"residual_mean_px": 1.5, "points_accepted": 20.0}
    end = make_end("success", figures=figures)

    def verdict(**options: Any) -> str:
        return PIPELINE.judge(Outcome(end=end, options=options, series=make_series())).verdict

    assert verdict() == "doubtful"
    assert verdict(residual_doubtful_px=2.0) == "good"
    assert verdict(residual_bad_px=1.2) == "bad"
    assert verdict(points_doubtful=21, residual_doubtful_px=2.0) == "doubtful"
    assert verdict(unknown=1) == "doubtful", "options that are wrong by now judge nothing"


def test_an_unknown_failure_shows_the_last_telling_lines() -> None:
    notes = ("batchruntomo.log: ERROR: something that nobody has met", "tilt.log: cannot go on")
    told: dict[str, Any] = {"notes": notes, "log_tail": ("fine", ""), "detail": "step tilt ended with exit 1"}
    end = make_end("failed", reason="exit 1", exit_status=1, **told)
    failure = PIPELINE.judge(Outcome(end=end)).failure
    assert failure is not None and (failure.failure_class, failure.reason) == ("program", "unknown")
    assert notes[0] in failure.detail and notes[1] in failure.detail and "fine" not in failure.detail


@pytest.mark.parametrize("reason", ["memory", "walltime", "no space"])
def test_what_the_runner_saw_itself_is_believed(reason: str) -> None:
    """A line in a log may only be what the runner's own ending of the step led to."""
    notes = ("batchruntomo.log: RECEIVED SIGNAL TO QUIT, JUST EXITING",) if reason != "no space" else ()
    end = make_end("failed", reason=reason, exit_status=143, notes=notes)
    failure = PIPELINE.judge(Outcome(end=end)).failure
    expected = {"no space": "scratch"}.get(reason, reason)
    assert failure is not None and failure.failure_class == expected


# -- setting IMOD up -----------------------------------------------------------------------------------------


def entering(
    settings: ImodSettings, home: Path, *argv: str, path: str = ""
) -> subprocess.CompletedProcess[str]:
    words = [word.replace("{input}", str(home.parent)) for word in entered(settings, *argv)]
    environment = {"PATH": path or os.environ["PATH"], "HOME": "/root-of-the-account"}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def printing(folder: Path) -> Path:
    """A program that prints what it was given."""
    program = folder / "bin" / "tell"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$IMOD_DIR" "$IMOD_CALIB_DIR" "$HOME" "$MET" "$@"\n')
    program.chmod(0o755)
    return folder


HOSTILE = '$(touch x) `y` ; \'a "b"'


def test_a_folder_of_imod_is_entered_and_nothing_is_read_as_shell(tmp_path: Path) -> None:
    imod, home = printing(tmp_path / "imod $(touch z)"), tmp_path / "home"
    found = entering(ImodSettings(dir=str(imod), calib_dir="/calib"), home, "tell", HOSTILE)
    assert found.stdout.splitlines() == [str(imod), "/calib", str(home), "", HOSTILE], found.stderr
    assert not (tmp_path / "x").exists() and not (tmp_path / "z").exists()


def test_imods_own_setup_beside_it_is_used(tmp_path: Path) -> None:
    imod = printing(tmp_path / "imod")
    (imod / "IMOD-linux.sh").write_text('MET="$IMOD_DIR was met by $HOME"; export MET\n')
    found = entering(ImodSettings(dir=str(imod)), tmp_path / "home", "tell")
    assert found.stdout.splitlines()[3] == f"{imod} was met by /root-of-the-account"


def test_imods_own_setup_may_be_written_for_bash(tmp_path: Path) -> None:
    """IMOD-linux.sh defines functions as only bash takes them, and sets paths unquoted."""
    imod = printing(tmp_path / "imod here")
    lines = ("export MET=$IMOD_DIR", "function subm () { submfg $* & }")
    (imod / "IMOD-linux.sh").write_text("\n".join(lines) + "\n")
    found = entering(ImodSettings(dir=str(imod)), tmp_path / "home", "tell")
    assert found.stdout.splitlines()[3:4] == [str(imod)], found.stderr


def test_a_setup_script_of_the_site(tmp_path: Path) -> None:
    imod, script = printing(tmp_path / "imod"), tmp_path / "set up.sh"
    script.write_text(f'export IMOD_DIR="{imod}" MET=[[bash]]; PATH="{imod}/bin:$PATH"; [[ -n $MET ]]\n')
    found = entering(ImodSettings(setup=str(script)), tmp_path / "home", "tell", "-x")
    assert found.stdout.splitlines() == [str(imod), "", str(tmp_path / "home"), "[[bash]]", "-x"]


def test_a_module(tmp_path: Path) -> None:
    imod = printing(tmp_path / "imod")
    init = tmp_path / "modules" / "init" / "bash"
    init.parent.mkdir(parents=True)
    init.write_text(
        f'module() {{ [ "$1 $2" = "load imod/4.11" ] || return 1; IMOD_DIR="{imod}"; export IMOD_DIR; }}\n'
    )
    settings = ImodSettings(module="imod/4.11")
    words = [word.replace("{input}", str(tmp_path)) for word in entered(settings, f"{imod}/bin/tell")]
    environment = os.environ | {"MODULESHOME": str(tmp_path / "modules")}
    found = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert found.stdout.splitlines()[0] == str(imod), found.stderr


@pytest.mark.parametrize("key", ["dir", "setup", "module"])
def test_an_installation_that_is_not_there_is_named(tmp_path: Path, key: str) -> None:
    settings = ImodSettings(**{key: "/nowhere/imod"})
    found = entering(settings, tmp_path / "home", "batchruntomo")
    assert (
        found.returncode == 126
        and f"tiltd: IMOD cannot be set up: [imod] {key}: /nowhere/imod" in found.stderr
    )
    notes = tuple(f"validate.log: {line}" for line in found.stderr.splitlines())
    end = make_end("failed", reason="exit 126", exit_status=126, notes=notes)
    failure = PIPELINE.judge(Outcome(end=end)).failure
    assert failure is not None and (failure.failure_class, failure.reason) == ("environment", "imod_setup")


def test_a_program_that_is_not_installed_is_an_environment_failure(tmp_path: Path) -> None:
    found = entering(ImodSettings(), tmp_path / "home", "batchruntomo", path="/usr/bin:/bin")
    assert found.returncode == 127
    end = make_end(
        "failed", reason="exit 127", exit_status=127, notes=(f"validate.log: {found.stderr.strip()}",)
    )
    failure = PIPELINE.judge(Outcome(end=end)).failure
    assert failure is not None and (failure.failure_class, failure.reason) == ("environment", "not_installed")


def test_braces_in_a_path_of_the_settings_are_refused() -> None:
    with pytest.raises(Permanent, match="braces"):
        entered(ImodSettings(dir="/opt/{input}"), "batchruntomo")


def test_the_shells_text_is_a_constant() -> None:
    """Nothing of a series, of options or of settings is ever in the text that a shell reads."""
    for step in steps_of().values():
        if step.argv[0] in ("sh", "bash"):
            assert step.argv[1:3] == ("-c", ENTER)


# -- repairs -------------------------------------------------------------------------------------------------

NO_ANGLES = "batchruntomo.log: ERROR: DOPEN - FILE stack.rawtlt DOES NOT EXIST"
NO_BEADS = "batchruntomo.log: ERROR: autofidseed - Running pickbestseed on tracked models"
BINNING = "comparam.prenewst.newstack.BinByFactor"
PATCHES = "option.comparam.xcorr_pt.tiltxcorr.SizeOfPatchesXandY"


def change_after(note: str, series: TiltSeries, **options: Any) -> dict[str, float | str]:
    end = make_end("failed", reason="exit 1", exit_status=1, notes=(note,))
    failure = PIPELINE.judge(Outcome(end=end, options=THICK | options, series=series)).failure
    assert failure is not None and failure.repair
    return dict(failure.change)


def test_a_repair_that_would_change_nothing_is_none() -> None:
    """Tilt angles were written already, patches were tracked already: the next attempt would fail alike."""
    series = make_series(image_size=(1024, 1024))
    assert change_after(NO_ANGLES, series) == {}
    off = {"setupset.copyarg.userawtlt": 0}
    assert change_after(NO_ANGLES, series, **off) == {"option.setupset.copyarg.userawtlt": "1"}
    patches = {"runtime.Fiducials.any.trackingMethod": 1, PATCHES.removeprefix("option."): "200,200"}
    assert change_after(NO_BEADS, series, **patches) == {}


@pytest.mark.parametrize(("binning", "patch"), [(1, 1204), (2, 602), (4, 301), (16, 75)])
def test_patches_of_a_repair_are_pixels_of_the_coarsely_aligned_stack(binning: int, patch: int) -> None:
    series = make_series(image_size=(4096, 4096))
    change = change_after(NO_BEADS, series, **{BINNING: binning})
    assert change[PATCHES] == f"{patch},{patch}"
    options = {name.removeprefix("option."): value for name, value in change.items()}
    PIPELINE.request(series, THICK | {BINNING: binning} | options)  # and it is not refused


def test_images_too_small_for_patches_are_not_repaired() -> None:
    assert change_after(NO_BEADS, make_series(image_size=(1024, 1024)), **{BINNING: 16}) == {}
