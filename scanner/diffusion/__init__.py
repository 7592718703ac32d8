"""The mathematics: schedules, the denoising loop, the scores. Knows no files and no frames."""
