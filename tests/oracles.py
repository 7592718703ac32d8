"""What a pipeline itself predicts at its first step: its modules, encode_prompt, scheduler and conventions."""

import copy

import numpy as np
import torch

SEEDS = (0, 1)


def noise(latent_shape, seeds=SEEDS):
    """As a scan draws it."""
    draws = [np.random.Generator(np.random.PCG64(seed)).standard_normal(latent_shape, np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(draws))


def stable_diffusion_xl(folder, prompt, latent_shape, pixels, **told):
    """The network's output for the prompt and for none, the latents, sigma: [S, C, H, W] each, at the first of 50."""
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(50)
    at = scheduler.timesteps[0]
    latents = noise(latent_shape) * scheduler.init_noise_sigma
    with torch.inference_mode():
        cond, uncond, pooled, pooled_uncond = pipeline.encode_prompt(prompt, device="cpu")
        size = told.get("original_size", pixels), told.get("crop", (0, 0)), told.get("target_size", pixels)
        width = pipeline.text_encoder_2.config.projection_dim
        time_ids = pipeline._get_add_time_ids(*size, torch.float32, width).repeat(len(latents), 1)
        x_t = scheduler.scale_model_input(latents, at)

        def output(hidden, text_embeds):
            added = {"text_embeds": text_embeds.repeat(len(latents), 1), "time_ids": time_ids}
            return pipeline.unet(x_t, at, hidden.repeat(len(latents), 1, 1), added_cond_kwargs=added).sample

        return output(cond, pooled), output(uncond, pooled_uncond), latents, scheduler


def clean(output, latents, scheduler):
    """The clean latents that an output means to the scheduler."""
    if hasattr(scheduler, "precondition_outputs"):
        return scheduler.precondition_outputs(latents, output, scheduler.sigmas[0])
    once = copy.deepcopy(scheduler)  # it counts its steps
    return once.step(output, once.timesteps[0], latents).pred_original_sample
