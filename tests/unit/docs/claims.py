"""Statement → the tests that show it (`path::name` below tests/), by document."""

from __future__ import annotations

E2E = "e2e/test_platform.py"
CAPTURE = "integration/sources/test_capture.py"
RESTORED = "integration/streaming/replay/test_restored.py"
REPLAY = "integration/streaming/replay/test_replay.py"
PROMOTION = "integration/streaming/replay/test_promotion.py"
INBOX = "integration/sources/csv/test_inbox.py"
CSV_ONCE = "integration/sources/csv/test_exactly_once.py"
PIPELINES = "pipelines/test_pipelines.py"
SERVING = "integration/api/test_serving.py"
WORKER = "integration/streaming/generations/test_worker.py"
PUBLISHER = "integration/streaming/sink/test_publisher.py"
SINK = "integration/streaming/sink/test_postgres.py"
TIME = "integration/api/test_time.py"
FOREIGN = "integration/streaming/test_foreign.py"

CLAIMS: dict[str, dict[str, tuple[str, ...]]] = {
    "README.md": {
        "**Exactly once.** Each hop moves its input position and its output in one transaction": (
            f"{E2E}::test_nothing_is_lost_or_doubled_when_any_process_is_killed_under_load",
            f"{E2E}::test_nothing_is_lost_or_doubled_when_kafka_is_killed_under_load",
            f"{E2E}::test_everything_killed_at_once_recovers_with_nothing_lost",
            f"{E2E}::test_a_killed_supervisor_recovers_with_nothing_lost",
            "e2e/test_three_sources.py::test_answers_are_a_plain_recomputation_of_three_sources_while_processes_are_killed",
        ),
        "a copy under another name is not read twice, new content under an old name is": (
            f"{INBOX}::test_a_copy_under_another_name_is_not_read_again",
            f"{INBOX}::test_new_content_under_an_old_name_is_read",
        ),
        "A run that was killed goes on at the row behind the last one taken": (
            f"{CSV_ONCE}::test_a_take_that_is_killed_at_any_time_neither_loses_nor_doubles",
            f"{CSV_ONCE}::test_a_take_that_is_killed_at_any_step_neither_loses_nor_doubles",
        ),
        "**Payments join in any order.** A payment that comes before its sale waits; one delivered twice counts once": (
            "pipelines/test_enriched_sales.py::test_is_the_join_of_the_histories_however_the_work_was_cut",
            "pipelines/test_enriched_sales.py::test_what_is_delivered_again_counts_once",
        ),
        "shown as `UNPAID` when it was pending for 7 days": (
            "integration/api/test_payments.py::test_pending_is_shown_as_unpaid_when_both_watermarks_are_seven_days_past_it",
        ),
        "**Updates and deletes count.** An update becomes a reversal of the old row and a sale of the new one": (
            f"{CAPTURE}::test_an_event_says_what_the_row_said",
            f"{E2E}::test_a_sale_its_correction_and_its_cancellation_show_up_in_the_api",
        ),
        "A window is *final* when everything recorded up to its end and a grace of 1 hour has been counted": (
            f"{PIPELINES}::test_late_begins_at_window_end_plus_grace",
            "integration/api/test_answers.py::test_a_window_is_final_when_every_partition_is_past_its_end_and_grace",
        ),
        "**Late facts are never silent.**": (
            "pipelines/test_properties.py::test_late_facts_are_counted_told_and_depend_on_the_event_alone",
            "integration/api/test_answers.py::test_what_came_late_is_told_by_currency_with_the_newest_restatement",
        ),
        "**Bad input stops nothing.** What cannot be taken goes to `dead-letters`": (
            f"{PIPELINES}::test_an_undecodable_event_is_a_dead_letter_and_the_rest_goes_on",
            f"{PIPELINES}::test_an_impossible_value_is_a_dead_letter_in_every_pipeline",
        ),
        "**Money is exact.** Decimals from end to end, never floats; currencies are never added to each other": (
            f"{PIPELINES}::test_currencies_are_never_mixed",
            f"{PIPELINES}::test_an_amount_of_the_tables_precision_is_taken",
            "integration/api/test_answers.py::test_totals_are_strings_of_exact_decimals",
        ),
        "**Answers are consistent.** Each is read from one snapshot and has an ETag that never goes back": (
            f"{SERVING}::test_every_answer_is_of_one_snapshot",
            f"{SERVING}::test_versions_never_go_back_over_promotion_and_rollback",
        ),
        "a check in Dagster reports them, and a payment for such an id joins neither": (
            "integration/observer/test_platform_status.py::test_sale_ids_of_several_sources_are_those_of_the_active_generation",
            "integration/api/test_payments.py::test_a_sale_in_two_sources_is_shown_for_each",
        ),
        "A group that more was taken back from than was sold takes no rank": (
            "integration/api/test_payments.py::test_a_sale_below_zero_is_not_summed_up_and_shows_its_count",
            "unit/electrored_dagster/test_observations.py::"
            "test_groups_below_zero_fail_the_check_of_their_answer_and_are_told_when_their_number_changes",
        ),
        "**One rule for texts, times and numbers** in all sources: blanks at the ends mean nothing": (
            "unit/contracts/test_texts.py::test_row_5_and_15_white_space_at_the_ends_means_nothing",
            "unit/sources/csv/test_values.py::test_row_15_nine_berlins_are_one_or_have_a_reason",
            "unit/sources/csv/test_values.py::test_row_16_three_rows_of_thousands_between_semicolons_are_refused",
            "integration/observer/test_lookalikes.py::test_row_15_cities_that_look_alike_are_those_of_the_newest_windows",
        ),
        "Bounds stay where they are when a machine learns new rules of the zone": (
            "unit/contracts/test_zones.py::test_row_30_a_generation_counts_alike_on_machines_with_different_rules",
        ),
        "answers show the newest that has begun, and `future_sales` how many lie ahead": (
            f"{TIME}::test_row_29_the_default_is_the_newest_window_that_has_begun",
        ),
        "has another schema (named by its id)": (
            f"{FOREIGN}::test_row_22_foreign_values_are_dead_letters_and_nothing_stops",
        ),
        "a row that is larger than the topic takes": (
            "integration/sources/test_record_limits.py::test_row_26_a_sale_larger_than_the_topic_takes",
        ),
        "is not recognised; what it brings again counts once": (
            "pipelines/test_enriched_sales.py::test_what_is_delivered_again_counts_once",
        ),
        "`TRUNCATE` of the sales table, or an `ALTER TABLE` that drops a needed column, makes it anew or computes its "
        "values anew, stops capture": (
            f"{CAPTURE}::test_a_change_that_cannot_be_reversed_stops_before_the_position_moves",
            "integration/sources/test_changed_table.py::test_row_2_a_rewrite_and_a_change_behind_it",
            "integration/sources/test_table.py::test_row_2_what_may_change_values_without_a_change_event_is_noticed",
        ),
        "`VACUUM FULL`, `CLUSTER`, other columns, an integer of another size, and a type that PostgreSQL changes "
        "without writing the table anew": (
            "integration/sources/test_table.py::test_row_2_what_keeps_the_values_stops_nothing",
        ),
        "both are refused, also while it runs": (
            "integration/sources/test_changed_table.py::test_row_3_a_policy_that_hides_rows_from_capture",
            "integration/sources/test_changed_table.py::test_row_4_a_table_that_inherits",
        ),
        "A change of the publication stops capture even if it was undone": (
            f"{CAPTURE}::test_a_change_of_the_publication_that_was_undone_stops_capture",
        ),
        "A group whose sales were all taken back is hidden, not deleted": (
            f"{SERVING}::test_views_show_what_the_api_shows",
            f"{PUBLISHER}::test_outsiders_see_totals_with_their_schema_and_no_hidden_group",
        ),
        "A replay that was killed goes on where it was with the same command": (
            f"{REPLAY}::test_a_slice_that_was_ended_goes_on_where_it_was",
            "integration/streaming/replay/test_kills.py::"
            "test_a_replay_killed_at_every_step_and_in_its_slices_ends_as_if_it_never_was",
        ),
        "A replay with nothing changed shows none": (
            f"{REPLAY}::test_a_replay_ends_as_a_candidate_that_differs_in_nothing_and_is_kept_up_to_date",
        ),
        "a promotion is refused if anything differs in a window outside of that range": (
            f"{PROMOTION}::test_a_range_that_is_not_kept_is_refused_and_the_difference_shown",
        ),
        "A promotion is one database transaction": (
            f"{PROMOTION}::test_killed_while_it_promotes_it_is_done_or_not_and_the_same_call_again_does_it_once",
        ),
    },
    "docs/operations.md": {
        "its generation is in no table any more, and the next replay takes a number of which Kafka holds nothing": (
            f"{RESTORED}::test_a_replay_does_not_take_a_number_that_kafka_has_the_progress_of",
        ),
        "the same request goes on with it": (
            f"{RESTORED}::test_a_replay_that_the_backup_knows_is_gone_on_with",
        ),
        "the publisher compares the public topic with it, and writes what differs": (
            f"{RESTORED}::test_the_public_topic_is_compared_after_each_restore_whatever_number_a_promotion_has",
        ),
        "a worker marks it `failed` when its topics are not there; retire it once more": (
            f"{RESTORED}::test_a_standby_that_kafka_has_no_more_is_given_up_and_can_be_retired",
        ),
        "worker, sink and publisher end with `topic … is gone` (or `was re-created`)": (
            f"{RESTORED}::test_an_active_generation_that_kafka_has_no_more_is_named_and_an_empty_database_begins_anew",
            f"{WORKER}::test_a_re_created_topic_stops_the_worker",
            f"{SINK}::test_a_recreated_topic_stops_the_sink_at_its_start",
            f"{PUBLISHER}::test_a_recreated_state_topic_stops_the_publisher",
        ),
        "each of which rests for less than 3 s": (
            "integration/streaming/test_scale.py::"
            "test_partitions_move_to_more_workers_and_back_within_3_seconds_and_nothing_is_wrong",
        ),
        "they would fence each other, and nothing would be counted twice": (
            f"{WORKER}::test_a_zombie_is_fenced",
        ),
        "A second one is fenced or ends": (
            "integration/sources/test_exactly_once.py::test_zombies_are_fenced",
            f"{PUBLISHER}::test_a_second_publisher_fences_the_first",
            f"{SINK}::test_a_stale_writer_stops_instead_of_overwriting",
        ),
        "capture, workers and sink refuse them": (
            f"{CAPTURE}::test_another_topic_of_events_stops_capture",
            f"{WORKER}::test_a_re_created_topic_stops_the_worker",
            f"{SINK}::test_rows_of_another_topic_are_not_continued",
        ),
        "Capture then ends with one line and exit code 1, at each start again": (
            f"{CAPTURE}::test_a_slot_that_is_gone_stops_capture",
        ),
        "The embedded stack fences a killed broker before it starts it": (
            "integration/stack/test_broker.py::test_a_killed_broker_is_fenced_first_even_if_that_is_killed_too",
        ),
        "Capture notices that by what its position holds": (
            "integration/sources/test_history.py::test_row_1_a_server_that_was_put_back_is_refused",
            "integration/sources/test_history.py::test_row_1_a_server_that_is_put_back_while_capture_runs_is_refused",
        ),
        "If nothing was sold between the copy and the end, nothing is missing, and capture goes on": (
            "integration/sources/test_history.py::test_row_1_a_copy_that_lacks_nothing_is_gone_on_with",
        ),
        "A worker that runs waits (`electrored status` shows it) and goes on by itself": (
            f"{FOREIGN}::test_row_25_a_registry_that_says_nothing_is_waited_for_with_a_word",
        ),
        "what starts, a replay, or a source that reads its position back, ends with that line": (
            f"{FOREIGN}::test_row_23_a_registry_without_its_schemas_stops_with_a_way_on",
        ),
        "puts those schemas back under their ids, in an Apicurio also without any backup": (
            f"{FOREIGN}::test_row_23_schemas_are_put_back_under_their_ids",
        ),
        "(and `electrored up`, which runs it) puts a setting right that is another one and reports which": (
            "integration/contracts/test_keeping.py::test_row_24_setup_puts_settings_right_and_says_which",
        ),
        "What cannot be put right is refused: a log that was compacted, and a first generation or a replay of a log": (
            "integration/contracts/test_keeping.py::test_row_24_a_log_that_was_compacted_is_for_a_person_to_judge",
            "integration/contracts/test_keeping.py::test_row_24_no_generation_is_computed_from_what_is_left_and_the_live_one_goes_on",
        ),
        "refuses a database that is newer than itself": (
            "integration/contracts/test_migrate.py::test_a_database_of_a_later_release_is_refused_and_left_as_it_is",
        ),
        "a worker that lacks the version of a live generation stops with one line": (
            "integration/streaming/generations/test_catalog.py::test_a_worker_that_lacks_the_active_version_says_so_in_one_line",
            "integration/streaming/replay/test_replay.py::test_a_version_that_this_code_lacks_is_left_to_others",
        ),
    },
}
