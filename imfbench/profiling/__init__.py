"""What a step costs: seconds and peak memory of a training or sampling step, measured or estimated.

No trained weights are needed: cost depends on shapes alone, and no figure of quality comes of it.

Example:
    from imfbench.profiling import Size, profile_step

    row = profile_step("meanflow", {"jvp": "one_pass"}, Size(frames=500, batch=4, width=128))
    print(row["seconds"], row["peak_memory"], row["peak_memory_kind"], row["measured"])
"""

from imfbench.profiling.fake import Estimate, estimate
from imfbench.profiling.rows import STAGES, System, profile, profile_step, systems_of
from imfbench.profiling.sizes import SHAPES, Size

__all__ = ["SHAPES", "STAGES", "Estimate", "Size", "System", "estimate", "profile", "profile_step", "systems_of"]
