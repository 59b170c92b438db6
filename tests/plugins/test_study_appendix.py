"""The files in the 2015 study's appendix: they parse, merge and validate, and this is what comes of them.

The study's directive file names its three templates by absolute path; the user template was left empty.
"""

from __future__ import annotations

import pytest

from plugins.imod_scene import GOLDEN, TABLE, book_of, series_of
from tiltd.plugins.imod.settings import ImodSettings

STUDY = GOLDEN / "study"
HOME = "/home/user"
SCOPE = f"{HOME}/ImodCalib/ScopeTemplate/scopeKrios1.adoc"
SYSTEM = f"{HOME}/ImodCalib/SystemTemplate/systemCryo.adoc"
USER = f"{HOME}/.etomotemplate/userRoman.adoc"
BATCH = "batchQbetatest.adoc"

EXPECTED = """
directive file  runtime.AlignedStack.any.correctCTF                        0
directive file  runtime.AlignedStack.any.eraseGold                         0
directive file  runtime.AlignedStack.any.filterStack                       1
directive file  runtime.BeadTracking.any.numberOfRuns                      5
directive file  runtime.GoldErasing.any.extraDiameter                      2
directive file  runtime.Preprocessing.any.archiveOriginal                  1
directive file  runtime.Preprocessing.any.removeXrays                      1
directive file  runtime.Reconstruction.any.doBackprojAlso                  1
directive file  runtime.Reconstruction.any.extraThickness                  100
directive file  runtime.Trimvol.any.reorient                               1
directive file  comparam.autofidseed.autofidseed.MinGuessNumBeads          5
directive file  setupset.scanHeader                                        1
scope template  setupset.copyarg.voltage                                   300
scope template  setupset.copyarg.Cs                                        2.7
scope template  setupset.copyarg.ctfnoise   /home/user/NoiseFiles/ImodCalib/CTFNoise/F20/F20_bin1_linux.cfg
system template setupset.copyarg.dual                                      0
system template setupset.copyarg.montage                                   0
system template setupset.copyarg.pixel                                     0.72
system template setupset.copyarg.gold                                      10
system template setupset.copyarg.extract                                   1
system template setupset.copyarg.binning                                   1
system template setupset.copyarg.twodir                                    0
system template setupset.copyarg.defocus                                   -5000
system template comparam.eraser.ccderaser.PeakCriterion                    10
system template comparam.eraser.ccderaser.DiffCriterion                    8
system template comparam.eraser.ccderaser.MaximumRadius                    2.1
system template comparam.xcorr.tiltxcorr.FilterRadius2                     0.25
system template comparam.xcorr.tiltxcorr.FilterSigma2                      0.05
system template runtime.Fiducials.any.fiducialless                         0
system template comparam.prenewst.newstack.ModeToOutput
system template runtime.Fiducials.any.trackingMethod                       0
system template runtime.Fiducials.any.seedingMethod                        1
system template comparam.track.beadtrack.LightBeads                        0
system template comparam.track.beadtrack.LocalAreaTracking                 0
system template comparam.track.beadtrack.SobelFilterCentering              1
system template comparam.track.beadtrack.KernelSigmaForSobel               1.5
system template comparam.track.beadtrack.RoundsOfTracking                  5
system template comparam.autofidseed.autofidseed.TwoSurfaces               1
system template comparam.autofidseed.autofidseed.TargetNumberOfBeads       50
system template comparam.autofidseed.autofidseed.TargetDensityOfBeads      50
system template comparam.autofidseed.autofidseed.ExcludeInsideAreas        0
system template comparam.autofidseed.autofidseed.AdjustSizes               1
system template comparam.align.tiltalign.SurfacesToAnalyze                 1
system template comparam.align.tiltalign.LocalAlignments                   0
system template comparam.align.tiltalign.MagOption                         3
system template comparam.align.tiltalign.TiltOption                        0
system template comparam.align.tiltalign.RotOption                         -1
system template comparam.align.tiltalign.BeamTiltOption                    0
system template comparam.align.tiltalign.ResidualReportCriterion           3
system template runtime.Positioning.any.wholeTomogram                      1
system template runtime.Positioning.any.binByFactor                        1
system template runtime.Positioning.any.thickness                          800
system template runtime.AlignedStack.any.linearInterpolation               1
system template runtime.AlignedStack.any.binByFactor                       1
system template comparam.ctfplotter.ctfplotter.InvertTiltAngles            0
system template comparam.ctfcorrection.ctfphaseflip.InvertTiltAngles       1
system template comparam.mtffilter.mtffilter.LowPassRadiusSigma            0.35 0.05
system template runtime.GoldErasing.any.binning                            1
system template comparam.golderaser.ccderaser.ExpandCircleIterations       2
system template comparam.tilt.tilt.THICKNESS                               400
system template comparam.tilt.tilt.RADIAL                                  0.35 0.05
system template runtime.Reconstruction.any.useSirt                         0
system template comparam.sirtsetup.sirtsetup.LeaveIterations               2 4 6
system template comparam.sirtsetup.sirtsetup.ScaleToInteger                -32000 32000
system template comparam.sirtsetup.sirtsetup.RadiusAndSigma                0.4 0.05
dataset         setupset.copyarg.userawtlt                                 1
tiltd           setupset.copyarg.name                                      stack
"""


def book(table=TABLE, **more):
    names = {BATCH: BATCH, SCOPE: "scopeKrios1.adoc", SYSTEM: "systemCryo.adoc"}
    texts = {name: (STUDY / file).read_text() for name, file in names.items()}
    return book_of({**texts, USER: "", **more}, table=table, settings=ImodSettings(directive_file=BATCH))


def expected():
    rows = set()
    for line in EXPECTED.strip().splitlines():
        layer, key, *value = line[:16].strip(), *line[16:].split(None, 1)
        rows.add((layer, key, value[0] if value else ""))
    return rows


def test_the_effective_directives_are_those_of_the_study():
    ready = book().ready(series_of(2048), {})
    found = {(row.layer, row.key, row.value) for row in ready.effective.rows()}
    assert found == expected()
    dropped = {each.directive.key for each in ready.effective.dropped}
    assert dropped == {
        "setupset.datasetDirectory",
        "setupset.scopeTemplate",
        "setupset.systemTemplate",
        "setupset.userTemplate",
    }


def test_the_name_and_the_angles_of_the_study_are_told_as_overruled():
    rows = {row.key: row for row in book().ready(series_of(2048), {}).effective.rows()}
    assert rows["setupset.copyarg.name"].overruled == (
        "140502_Qbeta_tomo2_0 (directive file /site/templates/batchQbetatest.adoc:5)",
    )
    assert rows["setupset.copyarg.userawtlt"].overruled == (f"1 (system template {SYSTEM}:9)",)


@pytest.mark.parametrize("table", ["with the installation's table", "without"])
def test_the_files_validate(table):
    judge = book(table="" if table == "without" else TABLE)
    for name, template in ((BATCH, False), ("scopeKrios1.adoc", True), ("systemCryo.adoc", True)):
        assert judge.checked((STUDY / name).read_text(), name, template) == ()


def test_elsewhere_its_templates_are_missed():
    faults = book_of({}).checked((STUDY / BATCH).read_text(), BATCH, False)
    assert [(fault.line, fault.severity) for fault in faults] == [(n, "warning") for n in (9, 10, 11)]


def test_merged_they_are_taken_with_one_doubt():
    """That the tilt axis is in the header (scanHeader) cannot be known before."""
    ready = book().checked_ready(series_of(2048), {})
    assert [(fault.key, fault.severity) for fault in ready.faults] == [
        ("setupset.copyarg.rotation", "warning")
    ]


def test_the_users_template_stands_between_system_template_and_directive_file():
    own = "comparam.track.beadtrack.RoundsOfTracking=2\nruntime.Fiducials.any.trackingMethod=0\n"
    rows = {row.key: row for row in book(**{USER: own}).ready(series_of(2048), {}).effective.rows()}
    assert rows["comparam.track.beadtrack.RoundsOfTracking"].value == "2"
    assert rows["comparam.track.beadtrack.RoundsOfTracking"].origin == f"user template {USER}:1"
    assert rows["runtime.BeadTracking.any.numberOfRuns"].value == "5"


def test_as_the_page_broke_their_lines_they_mean_the_same():
    """The study prints some values on the line below their key."""
    broken = (STUDY / BATCH).read_text().replace("Template=/home", "Template=\n    /home")
    assert broken.count("\n    /home") == 3
    again = book(**{BATCH: broken}).ready(series_of(2048), {})
    assert {(row.layer, row.key, row.value) for row in again.effective.rows()} == expected()


def test_what_the_2_6_GB_of_the_study_would_have_asked_for():
    """41 views of 5600 x 5600 pixels make 2.6 GB; 25.1 GB of volume, thickness 400."""
    demand = book().ready(series_of(5600), {}).demand
    assert demand.stack_bytes == pytest.approx(2.6e9, rel=0.02)
    peak = 3.0 * demand.stack_bytes + 3 * demand.volume_bytes  # the coarse stack is no bytes here
    peak += demand.stack_bytes  # the filter's backup
    assert demand.scratch_bytes == pytest.approx(1.01 * peak, rel=0.001)
    assert demand.memory_bytes < 16e9 and demand.walltime_seconds < 2 * 3600
