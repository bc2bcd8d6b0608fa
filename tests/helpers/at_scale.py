"""Tests that `make test` leaves out: each repeats at length what others assert.

By the name of the test: None for all of it, else patterns of the cases that stay in `make test`.
What stays for those left out as a whole is said beside them.
"""

from fnmatch import fnmatchcase

AT_SCALE = {
    # what each command and function does is asserted in its own tests
    "test_the_commands_run_as_printed": None,
    "test_the_python_blocks_run_one_after_another": None,
    "test_the_page_on_perturbations_runs": None,
    "test_the_page_on_domains_runs": None,
    # labels of each form, and verdicts from labels, in tests of their own
    "test_every_form_gives_the_same_labels_and_verdicts": None,
    # pictures of any size as by the model's own pipeline, and the guard of any classifier
    "test_hub_folder_classifies_as_its_own_pipeline": None,
    "test_a_hugging_face_model_is_measured_compared_and_guarded": None,
    # the import contract of `make lint` says it
    "test_reading_a_study_imports_no_torch": None,
    # what is missing is done again, and nothing else; the command reports a part of a study
    "test_a_second_run_does_nothing_and_the_report_is_the_same_bytes": None,
    "test_a_partial_study_says_what_was_not_measured": None,
    # the attack of this training finds what random directions do not, and equal weights twice
    "test_certified_accuracy_on_the_digits_is_higher_than_after_plain_training": None,
    # a graph, and a module of the folder, in the same folder of planted readers
    "test_torch_models_and_a_study_whose_workers_are_processes_of_their_own": None,
    "test_without_a_named_module_a_module_of_the_folder_is_not_found": None,
    # a lock dies with its owner; nothing half written stays
    "test_kills_at_random_moments_change_nothing": None,
    "test_two_runners_share_the_cells": None,
    # the same faults under worker processes; votes and commands on a cluster
    "test_a_study_survives_the_death_of_a_node": None,
    "test_nodes_that_share_no_folder_use_a_store": None,
    "test_a_cell_that_fails_costs_itself_and_those_that_need_it": None,
    "test_every_fault_costs_its_cell_alone": None,
    "test_a_failing_cell_is_named_and_the_rest_is_done": None,
    "test_workers_leave_the_working_folder_out_where_the_program_does": None,
    "test_shards_give_the_votes_of_one_sweep": None,
    "test_the_command_gives_the_same_answer_on_a_cluster": None,
    "test_a_cell_waits_for_the_resources_of_its_recipe": None,
    "test_a_study_on_a_cluster_stops_a_cell_that_hangs": None,
    # output kept as a whole, stages that are missing; resuming and packing in tests of their own
    "test_a_study_goes_on_from_its_packed_records": None,
    # each table, figure and page is asserted on a small study
    "test_every_finding_of_the_page_follows_from_the_records": None,
    "test_a_packed_study_gives_the_same_tables_figures_and_page": None,
    "test_tables_are_those_of_the_golden_file": None,
    "test_ten_numbers_taken_at_random_are_formed_again_from_the_votes": None,
    "test_rows_of_the_page_are_rows_of_the_tables": None,
    # ratios by hand; data read from the same files elsewhere; the same page by other tests
    "test_the_command_gives_every_contender_and_consistent_ratios": None,
    "test_each_family_is_a_row_with_its_own_number_of_copies": None,
    "test_fashion_mnist_is_read_as_published": None,
    "test_a_local_data_set_asks_nobody": None,
    "test_a_named_module_and_what_it_imports_are_found_and_nothing_else": None,
    "test_each_control_of_the_point_shows_recorded_votes": None,
    "test_without_scripts_and_on_paper_every_figure_is_a_still_picture": None,
    "test_every_figure_is_drawn_from_the_rows_one_can_download": None,
    "test_a_telephone_shows_it_without_scrolling_sideways": None,
    "test_the_page_of_a_scan_is_silent_and_suits_everyone": ["dark-360"],
    "test_quick_verdicts_agree_with_all_draws_and_cost_less": None,
    "test_a_step_does_not_import_the_compiler": None,
    # damaged files are refused in the tests of their readers, and the planted faults stay
    "test_every_reader_reads_or_refuses_damaged_files": None,
    # other cases of the same test stay; Neural Cleanse finds and spares in the scan's tests, too
    "test_a_planted_backdoor_is_found_and_a_clean_network_is_not": ["smooth*", "top-score"],
    "test_scores_are_repeated_whatever_the_order_of_the_images": ["smooth*", "top-score"],
    "test_memory_grows_neither_with_images_nor_with_draws": ["BoxMix", "Scale"],
    "test_ctrl_c_stops_at_once_with_one_line": ["2"],
    "test_damaged_weights_are_made_again_for_a_cell_that_needs_them": ["cut-train"],
    "test_a_damaged_record_is_set_aside_in_one_line_and_done_again": ["cut-json"],
    "test_a_users_own_code_gets_one_line_each": ["several_lines-2-error: one"],
    "test_a_model_that_never_answers_is_ended": ["models:holds_the_gil"],
    "test_every_command_takes_a_limit": ["arguments1"],
    "test_while_a_call_of_the_model_does_not_return": ["endless.onnx"],
    "test_true_decisions_keep_their_error_rate": ["0.8-one stray class of ten"],
    "test_curtailed_rate_holds_for_each_set_of_votes": ["0"],
    "test_votes_equal_a_slow_loop": [
        *("tensor-True", "named tuple-True", "dict-True", "ModelOutput-True", "one-hot flags-True"),
    ],
    "test_axe_finds_nothing_to_complain_about": ["dark-360"],
    "test_one_export_serves_modules_of_one_structure": ["small_cnn-*"],
    "test_a_training_gone_on_with_is_equal_to_the_bit": ["*-small_cnn"],
    "test_block_size_changes_few_labels_of_networks": ["7-small_cnn"],
    "test_chance_that_an_export_freezes_is_found": ["plain"],
    "test_a_function_of_the_image_is_left_alone": [
        *("small CNN", "bfloat16", "float16", "float64"),
        *("infinite scores", "labels"),
    ],
    "test_votes_of_every_form_are_those_of_a_slow_loop": [
        *("a dict", "a tuple, by number", "one logit", "labels only"),
    ],
    "test_every_form_gives_the_same_votes": [
        *("onnx", "onnx, fixed batch", "onnx, channels last", "pt2"),
    ],
    "test_matched_levels_change_the_stated_share_of_clean_labels": ["0.1"],
    "test_modules_of_several_outputs_are_scanned": ["<lambda>1"],
    "test_curtailed_decisions_agree_with_all_draws": [
        *("0.8-two classes", "1.25-two classes", "0.8-three leaders"),
        "1.25-strays spread over ten",
    ],
    "test_bounds_cover_the_true_w": ["two classes", "three leaders", "strays spread over ten"],
    "test_split_disagreements_keep_the_error_rate_at_the_border": ["0.3-True", "0.5-False"],
    "test_compiled_networks_name_what_eager_ones_do": ["small_cnn"],
    "test_invariances_on_every_path": ["compiled", "eager", "callable"],
    "test_closed_form_on_every_path": ["compiled-0.3", "eager-0.3", "ONNX file-0.3"],
    "test_loop_over_blocks_gives_the_scores_of_the_plain_graph": ["19"],
    "test_fools_no_fewer_than_art": ["inf"],
    "test_a_smoothed_training_gone_on_with_is_equal_to_the_bit": ["small_cnn"],
    "test_two_trainings_are_equal_to_the_bit": ["small_cnn", "*-small_cnn", "False-resnet*"],
    "test_a_scan_with_a_trigger_of_any_name_leaves_everything": ["*[[]2J*", "*script*"],
    "test_exports_of_torch_are_let_through": ["attentive"],
    "test_intervals_cover_as_stated": ["2-250", "3-25", "10-25"],
    "test_simulated_trainings_have_the_exact_probabilities_and_keep_the_bounds": ["0.35"],
    "test_every_command_says_so_first": ["measure-*", "test-clean.npz", "fit-*"],
    "test_no_command_warns_of_the_right_model": ["measure-*", "test-clean.npz", "fit-unlabelled*"],
    "test_a_path_that_begins_with_the_folder_is_mended": [""],
    "test_scores_that_are_in_order_by_chance_are_scores": ["*-False", "certain-True", "two*"],
    "test_modules_of_unusual_parts_are_measured": [
        *("get_extra_state", "shared parameters", "unusual buffers", "*TorchScript", "traced"),
    ],
    "test_what_takes_one_image_is_measured_one_at_a_time": ["*-callable-*", "*-module-None"],
    "test_sorted_values_are_no_scores": ["*-False", "*-None", "the best three-True"],
    "test_images_as_tensors_of_any_precision": ["dtype0"],
    "test_blocks_larger_than_those_of_the_probe_are_watched": ["129-150-*", "8-40-labels"],
    "test_what_is_random_or_remembers_is_refused": ["1-*", "40-compiled module", "40-callable"],
    "test_votes_there_do_not_depend_on_order_company_block_size_or_parts": [
        *("Gaussian-*", "BoxMix-*", "Affine-*", "SaltAndPepper-*", "Occlude-*"),
    ],
    "test_half_and_double_precision_are_scanned": ["dtype0"],
    "test_a_module_that_keeps_features_on_itself_runs_on_one_thread": ["None"],
    "test_block_size_never_changes_a_vote_of_a_rowwise_classifier": ["7", "64", "1000"],
    "test_half_space_agrees_with_closed_form": ["0.05", "0.5"],
    "test_the_false_positive_rate_is_the_stated_one": ["", "0.37-300"],
    "test_labels_as_floats_are_no_scores": ["eager-*", "callable-*", "compiled-None-False"],
    "test_a_field_with_a_default_renames_no_cell_and_no_recipe": ["digits", "noises"],
    "test_one_score_of_two_classes_is_two_scores": ["top-score"],
    "test_each_is_that_of_a_slow_loop": ["gaussian-0.3", "scale-3-5-7"],
    "test_the_class_is_what_predict_says": ["voting", "pipeline", "ridge", "support*"],
}


def is_at_scale(name, case):
    """Checks whether `make test` leaves out a case, such as `cut-train`, of a test."""
    if name not in AT_SCALE:
        return False
    return not any(fnmatchcase(case, pattern) for pattern in AT_SCALE[name] or ())
