"""Checks that tell a learner what is wrong with an answer: one file a page of the course."""

from diffusion_lib.exercises.forward_process import (
    check_add_noise,
    check_crossing,
    check_jump_on,
    check_recover_x0,
)
from diffusion_lib.exercises.full_runs import (
    check_checkpoint,
    check_epochs_in,
    check_parts_that_fit,
)
from diffusion_lib.exercises.guidance import (
    check_combine,
    check_drop,
    check_move_by_gradient,
)
from diffusion_lib.exercises.metrics import (
    check_nearest_other,
    check_paired_difference,
    check_sign_flip,
    check_unbiased_distance,
)
from diffusion_lib.exercises.paths import (
    check_heun_step,
    check_logit_normal,
    check_noise_from_velocity,
    check_reverse_step,
    check_straightness,
    check_tweedie,
)
from diffusion_lib.exercises.sampling import (
    check_ddim_step,
    check_dynamic_clip,
    check_leap,
    check_paste_known,
    check_redraw,
    check_slerp,
)
from diffusion_lib.exercises.schedules import (
    check_betas,
    check_fewest_steps,
    check_shift,
    check_to_variance_preserving,
    check_zero_terminal_snr,
)
from diffusion_lib.exercises.start_here import check_difference, check_nearest
from diffusion_lib.exercises.training import (
    check_ema_update,
    check_mean_from_score,
    check_noise_from_v,
    check_picture_weight,
    check_simple_loss,
)
from diffusion_lib.exercises.training_loop import check_training_loop
from diffusion_lib.exercises.unet import check_attend, check_receptive_field, check_way_up

__all__ = [
    "check_add_noise",
    "check_attend",
    "check_betas",
    "check_checkpoint",
    "check_combine",
    "check_crossing",
    "check_ddim_step",
    "check_difference",
    "check_drop",
    "check_dynamic_clip",
    "check_ema_update",
    "check_epochs_in",
    "check_fewest_steps",
    "check_heun_step",
    "check_jump_on",
    "check_leap",
    "check_logit_normal",
    "check_mean_from_score",
    "check_move_by_gradient",
    "check_nearest",
    "check_nearest_other",
    "check_noise_from_v",
    "check_noise_from_velocity",
    "check_paired_difference",
    "check_parts_that_fit",
    "check_paste_known",
    "check_picture_weight",
    "check_receptive_field",
    "check_recover_x0",
    "check_redraw",
    "check_reverse_step",
    "check_shift",
    "check_sign_flip",
    "check_simple_loss",
    "check_slerp",
    "check_straightness",
    "check_to_variance_preserving",
    "check_training_loop",
    "check_tweedie",
    "check_unbiased_distance",
    "check_way_up",
    "check_zero_terminal_snr",
]
