"""The MoE layer and its vocabulary: plans, slots, scorers, transport, losses, routers, experts, surgery."""
