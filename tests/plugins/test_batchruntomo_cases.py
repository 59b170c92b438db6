"""Every recorded run of batchruntomo, replayed through the real runner: verdict, class, message, remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.replaying import CASES, ReplaySite
from shell.runner_site import running, wait_until
from tiltd.plugins.imod import catalogue

TABLE = """
e_bad_directive              failed    config       unknown_directive
e_bad_directives_many        failed    config       unknown_directive
e_cpus1                      failed    config       usage
e_cpus_bad                   failed    config       usage
e_cpus_host1                 failed    config       usage
e_cross_device               failed    node         stack_not_moved
e_ctf_no_defocus             failed    config       defocus_missing
e_deliver_is_file            failed    node         folder_taken
e_deliver_parent_missing     failed    node         folder_missing
e_empty_stack                failed    input        stack_unreadable
e_few_beads                  bad       -            residual
e_few_beads_guess2           failed    input        few_beads
e_few_beads_segv             failed    input        few_beads
e_garbage_stack              failed    input        stack_unreadable
e_no_args                    failed    config       usage
e_no_current                 failed    config       usage
e_no_directive_file          failed    config       no_directive_file
e_no_directive_opt           failed    config       no_directive_file
e_no_equals                  failed    config       directive_malformed
e_no_imod_dir                failed    environment  imod_dir
e_no_pixel_noscan            failed    config       pixel_size_missing
e_none_beads                 bad       -            residual
e_none_beads_segv            failed    input        few_beads
e_pixel_text                 failed    config       not_a_number
e_rawtlt_missing             failed    input        no_tilt_angles
e_rawtlt_short               failed    input        too_few_tilt_angles
e_scope_template_abs_missing failed    config       template_missing
e_scope_template_missing     failed    config       template_missing
e_scope_template_relpath     failed    config       template_missing
e_stack_exists_in_both       failed    node         folder_taken
e_stack_missing              failed    input        stack_missing
e_trunc_stack                failed    input        stack_too_short
e_unknown_opt                failed    config       usage
f_diskfull_archive           failed    scratch      disk_full
f_diskfull_preali            failed    scratch      disk_full
f_diskfull_tilt              failed    scratch      disk_full
f_diskfull_trimvol           failed    scratch      disk_full
f_diskfull_xrays             failed    scratch      disk_full
full_1cpu_quiet              good      -            -
full_2cpu                    good      -            -
full_2cpu_quiet              good      -            -
full_S_2cpu                  good      -            -
full_S_hostname2             failed    environment  no_ssh
full_S_localhost2            good      -            -
full_S_nocpus                good      -            -
full_big_2cpu                good      -            -
n_badhost                    failed    node         machines_failed
n_email                      failed    program      no_tomogram
n_empty_bool                 failed    config       directive_bool
n_etomo_npe                  failed    config       scan_header_bug
n_fidless_erasegold          failed    config       gold_without_fiducials
n_mrc_ext                    failed    program      no_tomogram
n_no_java                    failed    environment  no_java
n_no_rotation_in_header      failed    config       rotation_missing
n_spaces_dir                 failed    program      no_tomogram
n_spaces_name                failed    config       name_with_blanks
n_two_sets                   failed    input        stack_unreadable
n_two_sets_exit              failed    input        stack_unreadable
p_ctf_simple                 good      -            -
p_fidless                    failed    config       fiducialless_in_parallel
p_gold3d_filter              good      -            -
p_noarchive                  good      -            -
p_nothick_local              good      -            -
p_patchtrack                 bad       -            residual
p_seeding0                   failed    config       seeding_method
p_sirt                       good      -            -
p_trim_toobig                failed    config       trim_size
r_already_delivered          failed    program      no_tomogram
r_rerun_from_scratch         doubtful  -            no_residual
s_quitfile                   failed    killed       quit_file
s_quitfile_at_start          failed    killed       quit_file
s_quitfile_lost              good      -            -
s_sigint                     failed    killed       interrupted
s_sigint_ignored             good      -            -
s_sigterm_etomo              failed    killed       terminated
s_sigterm_group              failed    killed       terminated
s_sigterm_in_tilt            failed    killed       terminated
s_sigterm_only               failed    killed       terminated
v_validate_bad               failed    config       unknown_directive
v_validate_ok                failed    program      not_completed
v_validate_plain             failed    program      not_completed
v_validate_tmpl              failed    program      not_completed
"""
"""Case, verdict, class of failure, and the entry of the catalogue or, of a success, the problem.

Of the runs that were told to end early (``n_email``, ``n_mrc_ext``, ``n_spaces_dir``,
``r_already_delivered``) batchruntomo says that they completed.  ``r_rerun_from_scratch`` is one too, over the
tomogram of an earlier run.  ``v_...`` were validations: those that pass have no run to follow.
"""

REMEDIES = {
    "unknown_directive": "tiltd directives check",
    "directive_malformed": "tiltd directives check",
    "directive_bool": "0 or 1",
    "usage": "version of IMOD",
    "no_directive_file": "report this",
    "defocus_missing": "copyarg.defocus",
    "pixel_size_missing": "copyarg.pixel",
    "not_a_number": "correct the directive",
    "template_missing": "absolute path",
    "rotation_missing": "copyarg.rotation",
    "scan_header_bug": "scanHeader = 0",
    "gold_without_fiducials": "eraseGold = 0 or 2",
    "fiducialless_in_parallel": "one core",
    "seeding_method": "seedingMethod = 1",
    "trim_size": "Trimvol",
    "name_with_blanks": "safe name",
    "stack_not_moved": "one file system",
    "folder_taken": "another node",
    "folder_missing": "scratch of the node",
    "imod_dir": "[imod]",
    "no_java": "Java runtime",
    "no_ssh": "nodes = 1",
    "machines_failed": "another node",
    "stack_unreadable": "copy it again",
    "stack_too_short": "copy the stack again",
    "stack_missing": "report this",
    "no_tilt_angles": "from the mdoc",
    "too_few_tilt_angles": "from the mdoc",
    "few_beads": "track patches",
    "disk_full": "scratch_factor",
    "no_tomogram": "ends it early",
    "not_completed": "last lines",
    "quit_file": "who stopped it",
    "interrupted": "who stopped it",
    "terminated": "who ended it",
}

ROWS = [tuple(line.split()) for line in TABLE.strip().splitlines()]
LOG_OF = {
    "f_diskfull_tilt": "processchunks.out: ",
    "f_diskfull_xrays": "processchunks.out: ",
    "f_diskfull_preali": "processchunks.out: ",
    "full_S_hostname2": "processchunks.out: ",
    "e_bad_directive": "validate.log: ",
    "e_rawtlt_missing": "batchruntomo.log: ",
}
"""In which log the line stands that tells the cause."""


def test_the_table_has_every_recorded_case() -> None:
    assert [row[0] for row in ROWS] == CASES


def test_every_entry_of_the_table_has_its_remedy() -> None:
    entries = {entry.code: entry for entry in catalogue.CATALOGUE}
    assert {code for _, verdict, _, code in ROWS if verdict == "failed"} == set(REMEDIES)
    assert [code for code, words in REMEDIES.items() if words not in entries[code].remedy] == []


@pytest.mark.parametrize(("case", "verdict", "failure_class", "code"), ROWS, ids=[row[0] for row in ROWS])
def test_a_recorded_run_ends_in_the_right_verdict(
    tmp_path: Path, case: str, verdict: str, failure_class: str, code: str
) -> None:
    replay = ReplaySite(tmp_path, case)
    end = replay.run()
    judged = replay.judge(end)
    assert judged.verdict == verdict, (end, judged)
    if verdict == "failed":
        failure = judged.failure
        assert failure is not None
        assert (failure.failure_class, failure.reason) == (failure_class, code), (failure, end.notes)
        assert REMEDIES[code] in failure.remedy
        assert LOG_OF.get(case, "") in failure.detail
    else:
        assert ",".join(problem.code for problem in judged.problems) == code.strip("-")
        assert end.outcome == "success" and "TS_01.rec" in replay.staged()
    assert replay.identity() == replay.before, "the stack in the feed is never touched"
    assert replay.site.clean()
    wait_until(lambda: not running(f"TILTD_TEST_MARK={tmp_path}"))
