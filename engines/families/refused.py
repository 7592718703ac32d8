"""Pipelines that overscan does not read, and why."""

NO_FILE = "overscan has no file for its networks and its conditioning yet"
LANGUAGE = f"with a language model as text encoder, which is told more than the prompt: {NO_FILE}"
UNCLIP = "a decoder of image embeddings (unCLIP): its first step knows the text only through what a prior samples"
IMAGE = "fed with an image beside the text: scan the FLUX that it was made from"
REFUSED = {
    "StableDiffusionXLImg2ImgPipeline": "the SDXL refiner, which finishes an image that the base model began and never "
    "sees its first step: scan the base (another SDXL that changes images: save it as a StableDiffusionXLPipeline)",
    "LatentConsistencyModelPipeline": "guidance is distilled into it (LCM), so nothing without the prompt is left to "
    "compare with: scan the model that it was distilled from",
    "KandinskyPipeline": UNCLIP,
    "KandinskyCombinedPipeline": UNCLIP,
    "KandinskyV22Pipeline": UNCLIP,
    "KandinskyV22CombinedPipeline": UNCLIP,
    "StableCascadeCombinedPipeline": f"Stable Cascade, three networks in a row: {NO_FILE}",
    "StableCascadePriorPipeline": f"Stable Cascade's first network: {NO_FILE}",
    "StableCascadeDecoderPipeline": "Stable Cascade's second network, which knows the text through the first",
    "IFPipeline": f"DeepFloyd IF, a cascade on pixels that predicts variances too: {NO_FILE}",
    "SanaPipeline": f"Sana, {LANGUAGE}",
    "Lumina2Pipeline": f"Lumina 2, {LANGUAGE}",
    "QwenImagePipeline": f"Qwen-Image, {LANGUAGE}",
    "ZImagePipeline": f"Z-Image, {LANGUAGE}",
    "HunyuanDiTPipeline": f"HunyuanDiT, with a bilingual CLIP and mT5: {NO_FILE}",
    "Flux2Pipeline": f"FLUX.2, {LANGUAGE}",
    "FluxFillPipeline": IMAGE,
    "FluxKontextPipeline": IMAGE,
    "FluxControlPipeline": IMAGE,
}
