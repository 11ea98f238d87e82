"""docs/from-research-deeplab.md: every flag of the original is there, and what it names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/from-research-deeplab.md").read_text("utf-8")


FLAGS = """
min_resize_value max_resize_value resize_factor keep_aspect_ratio logits_kernel_size model_variant
image_pyramid add_image_level_feature image_pooling_crop_size image_pooling_stride
aspp_with_batch_norm aspp_with_separable_conv multi_grid depth_multiplier divisible_by
decoder_output_stride decoder_use_separable_conv merge_method prediction_with_upsampled_logits
dense_prediction_cell_json nas_stem_output_num_conv_filters nas_use_classification_head
nas_remove_os32_stride use_bounded_activation aspp_with_concat_projection
aspp_with_squeeze_and_excitation aspp_convs_filters decoder_use_sum_merge decoder_filters
decoder_output_is_logits image_se_uses_qsigmoid label_weights batch_norm_decay num_clones
clone_on_cpu num_replicas startup_delay_steps num_ps_tasks master task train_logdir log_steps
save_interval_secs save_summaries_secs save_summaries_images profile_logdir optimizer
learning_policy base_learning_rate decay_steps end_learning_rate learning_rate_decay_factor
learning_rate_decay_step learning_power training_number_of_steps momentum adam_learning_rate
adam_epsilon train_batch_size weight_decay train_crop_size last_layer_gradient_multiplier
upsample_logits drop_path_keep_prob tf_initial_checkpoint initialize_last_layer
last_layers_contain_logits_only slow_start_step slow_start_learning_rate fine_tune_batch_norm
min_scale_factor max_scale_factor scale_factor_step_size atrous_rates output_stride
hard_example_mining_step top_k_percent_pixels quantize_delay_step dataset train_split dataset_dir
eval_logdir checkpoint_dir eval_batch_size eval_crop_size eval_interval_secs eval_scales
add_flipped_images eval_split max_number_of_evaluations vis_logdir vis_batch_size vis_crop_size
vis_split colormap_type also_save_raw_predictions max_number_of_iterations checkpoint_path
export_path num_classes crop_size inference_scales save_inference_graph
quantized_graph_def_path input_tensor_name output_tensor_name output_tflite_path test_image_path
"""
"""Of common, train, eval, vis, export_model and convert_to_tflite.py."""


def test_every_flag_is_there_once_and_no_other() -> None:
    assert sorted(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == sorted(FLAGS.split())


def test_every_setting_that_is_named_exists() -> None:
    settings = (ROOT / "docs/settings.md").read_text(
        "utf-8"
    )  # written from the settings themselves
    named = set(re.findall(r"`((?:model|data|init|loss|schedule|optimiser|run)\.\w+)", PAGE))
    assert len(named) > 50
    assert not [name for name in named if f"| `{name}` |" not in settings]


@pytest.mark.parametrize("command", ["train", "evaluate", "segment", "export"])
def test_every_option_that_is_named_exists(command: str) -> None:
    options = set(re.findall(rf"`deeplab {command}[^`]*? (--?[a-z][\w-]*)", PAGE))
    assert options
    help_text = subprocess.run(
        [sys.executable, "-m", "deeplab", command, "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert not [option for option in options if option not in help_text]
