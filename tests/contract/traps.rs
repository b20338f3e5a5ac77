//! What goes wrong in systems of this kind, and the tests that show that it does not here.
//!
//! Each trap was seen in a public system or in its users' reports. A trap that cannot apply yet says which part
//! it belongs to; the day that part is built, its test takes the reason's place.

use std::collections::BTreeMap;

use support::repository::text;

/// Where a trap is shown to be avoided.
enum Shown {
    /// By these tests: file and name.
    By(&'static [(&'static str, &'static str)]),
    /// It cannot apply to what is built so far.
    NotYet(&'static str),
}
use Shown::{By, NotYet};

const TRAPS: [(u8, &str, Shown); 33] = [
    (
        1,
        "a last use that cannot be read is taken for none",
        By(&[
            ("tests/pipeline/after_promotion.rs", "what_cannot_be_read_keeps_the_gate_shut"),
            ("functions/keywheel/src/decide/gate/tests.rs", "what_is_not_known_counts_as_in_use"),
            ("tests/e2e/gate.rs", "p6_a_gate_that_cannot_read_stays_shut"),
            ("tests/unused/scan.rs", "a_last_use_that_cannot_be_read_counts_as_use"),
        ]),
    ),
    (
        2,
        "the grace counts from the key's creation",
        By(&[
            (
                "functions/keywheel/src/decide/delete/tests.rs",
                "only_an_inactive_unused_key_past_its_grace_is_deleted",
            ),
            ("tests/e2e/stopped.rs", "who_takes_over_starts_the_clock_anew"),
        ]),
    ),
    (
        3,
        "a slot is freed by deleting a key that is not ours",
        By(&[
            ("tests/pipeline/blocked.rs", "slots_that_are_taken_by_others"),
            ("tests/e2e/adoption.rs", "p2_a_strangers_key_is_left_alone_and_the_text_says_how_to_retire_it"),
        ]),
    ),
    (
        4,
        "the old key goes by timer while it is in use",
        By(&[
            ("tests/pipeline/after_promotion.rs", "a_key_that_is_used_late_is_waited_for"),
            ("tests/e2e/gate.rs", "an_old_key_still_in_use_is_held_and_its_callers_are_named"),
        ]),
    ),
    (
        5,
        "a parameter of the template that no code reads",
        By(&[
            ("tests/contract/template.rs", "every_parameter_is_used_and_every_reference_is_defined"),
            ("tests/contract/template.rs", "every_variable_is_read_and_every_setting_is_given"),
        ]),
    ),
    (
        6,
        "an event's shape is not what its receiver expects",
        By(&[
            ("tests/contract/documents.rs", "every_sample_is_read_into_its_type_and_written_back_unchanged"),
            ("tests/contract.rs", "every_state_is_reached_and_every_edge_leads_somewhere"),
        ]),
    ),
    (
        7,
        "the report's slots are joined to keys by their order",
        By(&[
            (
                "tests/fleet.rs",
                "of_250_users_exactly_the_due_are_planned_and_their_runs_do_what_the_plan_says",
            ),
            (
                "functions/keywheel/src/decide/due/tests.rs",
                "what_a_run_would_find_decides_and_not_the_report",
            ),
            (
                "functions/keywheel/src/decide/due/unused/tests.rs",
                "a_key_is_nominated_where_every_row_that_may_be_its_own_is_quiet",
            ),
        ]),
    ),
    (
        8,
        "the loser of two runs clears what the winner made",
        By(&[
            ("tests/pipeline/together.rs", "two_runs_at_once_make_one_rotation"),
            ("tests/pipeline/together.rs", "a_run_beside_one_that_took_over_a_pending_version_is_blocked"),
            ("tests/e2e/together.rs", "of_two_runs_at_once_one_completes_and_one_new_key_is_made"),
        ]),
    ),
    (
        9,
        "a process dies between making a key and storing it",
        By(&[
            ("tests/pipeline/together.rs", "an_orphan_of_a_stopped_run_is_cleared_by_the_next"),
            ("tests/e2e/killed.rs", "p1_p5_fifty_rotations_survive_that_their_lambda_is_killed_in_a_call"),
        ]),
    ),
    (
        10,
        "the SDK sends CreateAccessKey again after a lost reply",
        By(&[
            ("tests/fake.rs", "with_the_sdks_retries_a_lost_reply_makes_more_keys_than_one"),
            ("tests/pipeline/before_promotion.rs", "a_lost_create_reply_leaves_no_orphan"),
            ("tests/e2e/create.rs", "a_create_that_failed_before_it_took_effect_is_sent_once_an_attempt"),
        ]),
    ),
    (
        11,
        "the old key is off before the new one works",
        By(&[
            ("tests/e2e/consumer.rs", "control_the_same_consumer_fails_where_the_key_is_disabled_first"),
            ("tests/sensitivity.rs", "every_broken_variant_is_caught_by_the_promise_it_breaks"),
        ]),
    ),
    (
        12,
        "containment waits behind mail, models and scans",
        By(&[
            ("tests/emergency/alone.rs", "p3_nothing_that_fails_beside_it_keeps_a_key_from_being_contained"),
            ("tests/e2e/emergency.rs", "p3_nothing_that_fails_beside_it_keeps_a_key_from_being_contained"),
            ("tests/sensitivity.rs", "every_broken_variant_is_caught_by_the_promise_it_breaks"),
            ("tests/pipeline/notices.rs", "a_notify_that_dies_every_time_fails_no_rotation"),
        ]),
    ),
    (
        13,
        "a lookup of exemptions that fails means not exempt",
        NotYet("exemptions come with the policy document"),
    ),
    (
        14,
        "a failure is swallowed and the flow succeeds",
        By(&[
            (
                "tests/contract.rs",
                "every_task_that_can_fail_is_retried_where_that_helps_and_caught_in_the_end",
            ),
            ("tests/woven.rs", "every_promise_holds_in_every_order"),
        ]),
    ),
    (
        15,
        "only the first page is read",
        By(&[
            ("tests/pipeline.rs", "lists_that_lag_and_keys_that_die_late_are_no_trouble"),
            ("tests/pipeline/blocked.rs", "a_second_secret_is_found_on_the_last_page"),
        ]),
    ),
    (
        16,
        "AWSCURRENT moves before the new key was validated",
        By(&[
            (
                "tests/pipeline/adoption.rs",
                "a_secret_without_a_value_gets_its_first_key_and_only_a_validated_one",
            ),
            ("tests/sensitivity.rs", "every_broken_variant_is_caught_by_the_promise_it_breaks"),
        ]),
    ),
    (
        17,
        "id and secret are written by two calls",
        By(&[
            ("tests/pipeline.rs", "an_undisturbed_rotation_makes_exactly_these_calls"),
            ("functions/keywheel/src/secret.rs", "half_a_credential_is_an_error_and_none_is_a_beginning"),
        ]),
    ),
    (
        18,
        "a retry finds the label moved and forgets the rest",
        By(&[
            ("tests/pipeline/before_promotion.rs", "a_lost_promotion_reply_is_recognised"),
            ("tests/e2e/create.rs", "a_promotion_whose_reply_is_lost_is_recognised"),
        ]),
    ),
    (
        19,
        "the secret is mailed, printed, passed or logged",
        By(&[
            ("tests/e2e/leaks.rs", "p4_the_secret_stays_in_the_store"),
            ("functions/keywheel/src/secret.rs", "nothing_of_a_value_is_printed"),
        ]),
    ),
    (
        20,
        "a notice fails its run, or is marked before it is sent",
        By(&[
            (
                "tests/pipeline/notices.rs",
                "a_channel_that_is_down_delays_nothing_and_gets_all_when_it_is_back",
            ),
            ("tests/pipeline/notices.rs", "entries_that_the_bus_refuses_are_not_counted_as_sent"),
        ]),
    ),
    (
        21,
        "Slack says to wait, and the message is dropped",
        By(&[
            ("tests/contract/platform.rs", "what_slack_does_not_take_is_tried_for_a_day_and_then_kept"),
            ("tests/e2e/slack.rs", "p7_a_slack_that_refuses_delays_nobody_and_keeps_nothing_from_the_others"),
        ]),
    ),
    (
        22,
        "an emergency deletes: no evidence, no way back",
        By(&[
            ("tests/pipeline/rollback.rs", "a_leaked_key_is_replaced_at_once_and_kept_as_evidence"),
            ("tests/emergency/subjects.rs", "a_repeat_says_so_once_and_starts_nothing"),
            (
                "functions/keywheel/src/decide/entry/tests.rs",
                "a_leaked_key_is_evidence_until_its_owner_lets_go_of_it",
            ),
        ]),
    ),
    (
        23,
        "sessions of a leaked key live on",
        By(&[
            (
                "tests/emergency/sessions.rs",
                "sessions_from_before_are_denied_and_later_ones_and_the_new_key_are_not",
            ),
            ("tests/e2e/emergency.rs", "p3_a_leaked_key_of_a_managed_user_ends_inactive_denied_and_replaced"),
        ]),
    ),
    (
        24,
        "IAM shows things late",
        By(&[
            ("tests/pipeline.rs", "keys_that_are_accepted_late_are_waited_for"),
            ("tests/pipeline/before_promotion.rs", "a_new_key_that_the_list_does_not_show_yet_is_taken_back"),
            ("tests/emergency/gap.rs", "a_key_minted_in_the_gap_is_part_of_the_leak"),
        ]),
    ),
    (
        25,
        "a user has more than two keys",
        By(&[
            ("tests/pipeline/together.rs", "two_runs_at_once_make_one_rotation"),
            ("tests/model.rs", "two_runs_whose_creations_race_past_the_limit"),
        ]),
    ),
    (
        26,
        "a path in the ARN; another user under the same name",
        By(&[
            ("tests/e2e/whole.rs", "a_user_with_a_path_and_the_longest_and_oddest_name_rotates"),
            ("tests/pipeline/before_promotion.rs", "a_user_made_anew_under_the_same_name_is_another_user"),
        ]),
    ),
    (
        27,
        "a rule waits for one code and another comes",
        By(&[
            ("tests/triage.rs", "every_sample_gets_its_class"),
            ("tests/e2e/emergency.rs", "every_sample_of_a_leak_starts_an_emergency_through_the_rules"),
        ]),
    ),
    (
        28,
        "jobs read credentials once and run for hours",
        By(&[
            ("tests/pipeline/after_promotion.rs", "a_key_that_is_used_late_is_waited_for"),
            (
                "tests/e2e/gate.rs",
                "a_held_run_that_waits_longer_completes_once_its_callers_have_changed_over",
            ),
        ]),
    ),
    (
        29,
        "a missed run means a missed warning",
        By(&[
            ("tests/fleet/warnings.rs", "a_warning_whose_day_was_missed_goes_out_late_and_once"),
            (
                "functions/keywheel/src/decide/ahead/tests.rs",
                "what_a_campaign_could_not_tell_is_told_by_the_next_under_the_same_id",
            ),
        ]),
    ),
    (
        30,
        "an event names a key that is not the user's, a session's, the root's or a sample",
        By(&[
            ("tests/emergency/subjects.rs", "the_owner_is_whom_iam_names"),
            ("tests/emergency/subjects.rs", "a_pair_that_does_not_match_is_never_touched"),
            ("tests/emergency/subjects.rs", "the_root_and_roles_are_told_by_their_names_and_not_touched"),
            ("tests/emergency/subjects.rs", "a_detectors_sample_is_told_and_changes_nothing"),
        ]),
    ),
    (
        31,
        "a rotation's own calls alarm against it",
        By(&[("functions/keywheel/src/triage/tests.rs", "a_key_switched_on_again_is_told_unless_we_did_it")]),
    ),
    (
        32,
        "an execution's name is taken for 90 days",
        By(&[
            ("tests/pipeline/blocked.rs", "a_run_whose_name_is_no_run_id"),
            ("tests/pipeline.rs", "rotations_follow_each_other"),
        ]),
    ),
    (
        33,
        "a new release meets an old document",
        By(&[
            ("tests/contract/documents.rs", "a_document_of_the_first_release_is_still_understood"),
            ("tests/contract/documents.rs", "the_words_of_documents_do_not_change"),
        ]),
    ),
];

#[test]
fn every_trap_that_can_apply_has_its_tests() {
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    for (index, (number, trap, shown)) in TRAPS.iter().enumerate() {
        assert_eq!(usize::from(*number), index + 1, "{trap}");
        match shown {
            By(tests) => {
                assert!(!tests.is_empty(), "{number}: {trap}");
                for (file, name) in *tests {
                    let source = files.entry(file).or_insert_with(|| text(file));
                    let declared = format!("fn {name}(");
                    let place =
                        source.find(&declared).unwrap_or_else(|| panic!("{number}: {file} has no {name}"));
                    let before = source[..place].trim_end().trim_end_matches("async").trim_end();
                    assert!(before.ends_with(']'), "{number}: {name} is no test");
                }
            }
            NotYet(reason) => assert!(!reason.is_empty(), "{number}: {trap}"),
        }
    }
}
