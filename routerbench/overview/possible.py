"""What needs torch: whether a configuration can run on this machine, what it costs and on which device."""

import torch
from omegaconf import DictConfig

from routerbench.device import choose_device
from routerbench.overview.estimate import Size
from routerbench.provenance import device_name
from routerbench.timm_import import import_timm


def device_here(config: DictConfig) -> str:
    """The device of its run by the name in a record; raises ValueError where it cannot be used."""
    if config.runtime.threads is not None:  # the name tells how many
        torch.set_num_threads(config.runtime.threads)
    return device_name(choose_device(config.runtime.device))


def size_of(config: DictConfig) -> Size:
    """What its model costs, by one without weights; raises ValueError for what cannot run."""
    # Seconds to import, for which a plan of configurations that have run before need not wait.
    import_timm()
    from routerbench.costs import static_costs
    from routerbench.moe.surgery import take_shape
    from routerbench.parts import build_model, put_moe_layers, verify

    verify(config)
    image_size = (config.data.image_size, config.data.image_size)
    with torch.device("meta"):
        model = build_model(config, num_classes=2)  # as many as there are is known when the data are read
        put_moe_layers(model, config)
        take_shape(model, image_size)
    costs = static_costs(model, image_size)
    return Size(costs.flops_per_image, costs.params_total)
