"""What routers promise of any tokens and settings: by plain loops where there is one answer, else by law."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.testing import assert_close

import routerbench as rb
from routerbench.build import configured_router
from routerbench.config import conf_dir
from routerbench.moe.scorer import SCORERS, LinearScorer
from routerbench.moe.sparse import ExpertChoiceRouter, SparseRouter, TokenChoiceRouter
from routerbench.moe.transport import SOLVERS
from routerbench.routers.controls import PositionRouter
from routerbench.routers.fixed_mixtures import FixedMixture
from routerbench.routers.soft import Soft
from routerbench.schema import register_schema

register_schema()  # the yamls multiply
# What a yaml takes from the root of the configuration is drawn, so any number will do here.
CONF: dict[str, Any] = {
    path.stem: OmegaConf.to_container(
        OmegaConf.merge({"slots_per_token": 1, "capacity_factor": 1.0}, {"router": OmegaConf.load(path)}),
        resolve=True,
    )["router"]  # pyright: ignore
    for path in sorted((conf_dir() / "router").glob("*.yaml"))
    if path.stem != "dense"
}
METHODS = {name: type(configured_router(DictConfig(conf), 2, 2)) for name, conf in CONF.items()}


def routers_of(*families: type) -> list[str]:
    return [name for name, method in METHODS.items() if issubclass(method, families)]


ROUTERS = list(METHODS)
EXPERT_CHOICE = routers_of(ExpertChoiceRouter)
TOKEN_CHOICE = routers_of(TokenChoiceRouter)
GATED = routers_of(SparseRouter)
POSITION = routers_of(PositionRouter)
SPARSE = GATED + POSITION
MIXTURES = routers_of(Soft, FixedMixture)
# These promise that a token's place in its group says nothing; another router may go by it.
BLIND_TO_PLACE = (
    "expert_choice",
    "sinkhorn_expert_choice",
    "sparse_expert_choice",
    "token_choice",
    "sinkhorn_token_choice",
    "sparse_token_choice",
    "sigmoid_bias",
)
BLIND_EXPERT_CHOICE = [name for name in EXPERT_CHOICE if name in BLIND_TO_PLACE]
BLIND_TOKEN_CHOICE = [name for name in TOKEN_CHOICE if name in BLIND_TO_PLACE]
TRANSPORT = [name for name in GATED if "num_iterations" in CONF[name]]
SINKHORN = [name for name in TRANSPORT if "regularisation" in CONF[name]]
RANDOM_IN_TRAINING = [name for name in ROUTERS if "noise_std" in CONF[name]]

FACTORS = st.sampled_from([0.25, 0.5, 1.0, 1.25, 2.0, 8.0])
OPTIONS: dict[str, Callable[[int], st.SearchStrategy[Any]]] = {
    "top_k": lambda num_experts: st.integers(1, num_experts),
    "top_k_eval": lambda num_experts: st.none() | st.integers(1, num_experts),
    "batch_priority": lambda _: st.booleans(),
    "scorer": lambda _: st.sampled_from(SCORERS),
    "projection_width": lambda _: st.none() | st.integers(1, 4),
    "temperature": lambda _: st.sampled_from([None, 0.02]),
    "noise_std": lambda _: st.sampled_from([0.0, 1.0]),
    "normalize_combine": lambda _: st.booleans(),
    "capacity_factor": lambda _: FACTORS,
    "capacity": lambda _: st.none() | st.integers(1, 30),
    "capacity_rounding": lambda _: st.sampled_from(["ceil", "round"]),
    "capacity_multiple_of": lambda _: st.sampled_from([1, 1, 2, 4]),
    "capacity_factor_eval": lambda _: st.none() | FACTORS,
    "dropless": lambda _: st.booleans(),
    "slots_per_expert": lambda _: st.none() | st.integers(1, 4),
    "solver": lambda _: st.sampled_from(sorted(SOLVERS)),
    "num_iterations": lambda _: st.sampled_from([1, 5, 20]),
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
KINDS = ["normal", "grid", "extreme"]


@dataclass(frozen=True)
class Case:
    """A router with settings, and tokens: `normal`; a `grid` of halves, with twins; or `extreme`, up to +-50.

    Where the gate is linear, grid and extreme tokens are the logits themselves.
    """

    name: str
    num_groups: int
    num_tokens: int
    num_experts: int
    width: int
    kind: str
    dtype: torch.dtype
    training: bool
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> "Case":
        """With these settings, as far as the router has them."""
        known = {key: value for key, value in changes.items() if key in CONF[self.name]}
        return replace(self, settings={**self.settings, **known})

    def router(self) -> rb.Router:
        """A router that depends on the case alone, and whose state is not that of the start."""
        torch.manual_seed(self.seed)
        config = DictConfig({**CONF[self.name], **self.settings})
        router = configured_router(config, self.width, self.num_experts)
        for buffer in router.buffers():
            buffer.copy_(torch.randint(-2, 3, buffer.shape) / 4)
        if self.kind != "normal" and isinstance(router, SparseRouter):
            scorer = router.scorer
            if isinstance(scorer, LinearScorer):
                nn.init.eye_(scorer.weight)
        if any(is_lazy(parameter) for parameter in router.parameters()):
            router(self.tokens())
        return router.train(self.training)

    def layer(self) -> rb.MoE:
        """A layer in double precision, whose experts differ and have biases."""
        router = self.router()
        experts = rb.Experts(self.num_experts, self.width, hidden=3)
        for parameter in experts.parameters():
            nn.init.normal_(parameter, std=0.5)
        return rb.MoE(router, experts).double().train(self.training)

    def tokens(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.num_groups, self.num_tokens, self.width)
        if self.kind == "normal":
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.dtype)
        if self.kind == "extreme":
            return 50 * torch.randint(-1, 2, shape, generator=generator).to(self.dtype)
        twin = torch.randint(self.num_tokens, (self.num_tokens,), generator=generator)
        return torch.randint(-4, 5, shape, generator=generator)[:, twin].to(self.dtype) / 2

    @property
    def num_choices(self) -> int:
        """How often a token asks, by the settings."""
        top_k_eval = self.settings.get("top_k_eval")
        return self.settings.get("top_k", 1) if self.training or top_k_eval is None else top_k_eval

    @property
    def num_slots(self) -> int:
        """Slots per expert, by the settings."""
        get = self.settings.get
        factor, fixed = get("capacity_factor", 1.0), get("capacity") or get("slots_per_expert")
        if not self.training and get("dropless"):
            return self.num_tokens
        if not self.training and get("capacity_factor_eval"):
            factor, fixed = self.settings["capacity_factor_eval"], None
        if fixed is not None:
            return fixed if self.name in MIXTURES else min(fixed, self.num_tokens)
        wanted = self.num_tokens * self.num_choices * Fraction(factor) / self.num_experts
        rounded = max(1, math.ceil(wanted) if get("capacity_rounding") == "ceil" else round(wanted))
        multiple = self.settings["capacity_multiple_of"]
        return min(math.ceil(Fraction(rounded, multiple)) * multiple, self.num_tokens)


@st.composite
def cases(
    draw: st.DrawFn,
    names: Sequence[str],
    *,
    kinds: Sequence[str] = KINDS,
    dtypes: Sequence[torch.dtype] = DTYPES,
    training: Sequence[bool] = (True, False),
    min_experts: int = 1,
    **fixed: Any,
) -> Case:
    """Cases of these routers; settings that are not `fixed` are drawn."""
    name = draw(st.sampled_from(names))
    num_experts = draw(st.integers(min_experts, 6))
    drawn = {key: draw(option(num_experts)) for key, option in OPTIONS.items() if key in CONF[name]}
    if drawn.get("scorer") == "linear":
        drawn |= {"projection_width": None, "temperature": None}
    case = Case(
        name,
        num_groups=draw(st.integers(1, 3)),
        num_tokens=draw(st.integers(1, 24)),
        num_experts=num_experts,
        width=draw(st.integers(1, 8)),
        kind=draw(st.sampled_from(kinds)),
        dtype=draw(st.sampled_from(dtypes)),
        training=draw(st.sampled_from(training)),
        seed=draw(st.integers(0, 2**16)),
        settings=drawn,
    ).but(**fixed)
    return case.but(capacity_factor_eval=None) if case.settings.get("dropless") else case


IN_DOUBLE: dict[str, Any] = {"dtypes": [torch.float64]}
EVALUATED: dict[str, Any] = {"training": [False]}


@dataclass(frozen=True)
class Decision:
    """What a router with a gate made of a case, and what it stood on: logits, gates and affinities."""

    routing: rb.Routing
    gates: Tensor
    affinity: Tensor

    @property
    def dispatch(self) -> Tensor:
        return self.routing.plan.dense()[0]

    @property
    def weight(self) -> Tensor:
        """What each expert counts for each token (G, S, E)."""
        return self.routing.plan.dense()[1].sum(-1)

    @property
    def seated(self) -> Tensor:
        """Whether each token sits in each expert (G, S, E)."""
        return self.dispatch.sum(-1) > 0


def decision_of(case: Case) -> Decision:
    router, tokens = case.router(), case.tokens()
    assert isinstance(router, SparseRouter)
    torch.manual_seed(1)
    routing = router(tokens)
    torch.manual_seed(1)  # the same noise
    logits = router.scorer(tokens.to(routing.plan.gates.dtype)).noisy
    gates = router.gates(logits)
    return Decision(routing, gates.detach(), router.affinity(logits, gates).detach())


def routing_of(case: Case) -> rb.Routing:
    router, tokens = case.router(), case.tokens()
    torch.manual_seed(1)
    return router(tokens)


def first(scores: Sequence[float], count: int) -> list[int]:
    """Indices of the largest, largest first; of equals, the lower index first, since `sorted` is stable."""
    return sorted(range(len(scores)), key=lambda i: -scores[i])[:count]


def seats_by_token(
    choices: list[list[int]], order: Sequence[int], num_experts: int, capacity: int
) -> list[list[int]]:
    """The tokens of each expert in the order of its slots: every first choice before any second."""
    seats: list[list[int]] = [[] for _ in range(num_experts)]
    for rank in range(len(choices[0])):
        for token in order:
            expert = seats[choices[token][rank]]
            if len(expert) < capacity:
                expert.append(token)
    return seats


def seats_of(plan: rb.Plan, group: int) -> list[list[int]]:
    """The tokens of each expert in the order of its slots, read from the dense definition."""
    dispatch = plan.dense()[0][group].permute(1, 2, 0)
    return [[token for slot in expert for token in slot.nonzero()[:, 0].tolist()] for expert in dispatch]


def routings_are_equal(one: rb.Routing, other: rb.Routing) -> bool:
    assert list(one.measures) == list(other.measures)
    left, right = (
        (routing.plan.gates, *routing.plan.dense(), *routing.measures.values()) for routing in (one, other)
    )
    return all(torch.equal(*pair) for pair in zip(left, right, strict=True))


def test_every_family_has_its_routers() -> None:
    assert EXPERT_CHOICE
    assert TOKEN_CHOICE
    assert SINKHORN
    # So that no property of a family holds for want of a member.
    assert {*BLIND_EXPERT_CHOICE, *BLIND_TOKEN_CHOICE} == set(BLIND_TO_PLACE)
    assert {"hash", "random"} <= set(POSITION)
    assert {"soft", "soft_identity", "uniform"} <= set(MIXTURES)


# Who sits where.


@given(cases(ROUTERS))
def test_slots_are_as_many_as_the_settings_say(case: Case) -> None:
    plan = routing_of(case).plan
    assert plan.num_slots == case.num_slots
    assert plan.dense()[0].shape == (case.num_groups, case.num_tokens, case.num_experts, case.num_slots)
    assert (plan.load <= case.num_slots).all()


@given(cases(SPARSE))
def test_a_slot_holds_one_token_and_an_expert_a_token_once(case: Case) -> None:
    dispatch, combine = routing_of(case).plan.dense()
    assert ((dispatch == 0) | (dispatch == 1)).all()
    assert dispatch.sum(1).max() <= 1
    assert dispatch.sum(3).max() <= 1
    assert not combine[dispatch == 0].any()


@settings(max_examples=150)
@given(cases(ROUTERS))
def test_a_plan_says_of_itself_what_its_dense_tensors_show(case: Case) -> None:
    plan = routing_of(case).plan
    dispatch, _ = plan.dense()
    assert torch.equal(plan.filled, (dispatch > 0).any(1))
    assert_close(plan.load, dispatch.sum((1, 3)))
    even_share = case.num_slots / case.num_tokens if case.name in MIXTURES else 1
    assert_close(plan.expert_share, dispatch.sum(3) / even_share)
    assert torch.equal(plan.served, (plan.expert_share > 1 - 1e-4).sum(2))
    assert torch.equal(plan.dropped, dispatch.sum((2, 3)) == 0)
    assert_close(plan.gates.sum(2), torch.ones_like(plan.gates[:, :, 0]))
    asks = case.num_tokens * case.num_choices
    assert_close(plan.demand.sum(1), plan.demand.new_full((case.num_groups,), asks))
    if case.name in EXPERT_CHOICE:
        preferred = [[first(token, 1)[0] for token in group] for group in plan.gates.tolist()]
        counts = [[group.count(expert) for expert in range(case.num_experts)] for group in preferred]
        assert plan.demand.tolist() == counts
    elif case.name in SPARSE:
        assert torch.equal(plan.load, plan.demand.clamp(max=case.num_slots))


@settings(max_examples=150)
@given(cases(TOKEN_CHOICE))
def test_tokens_queue_as_in_a_plain_loop(case: Case) -> None:
    decision = decision_of(case)
    for group, affinity in enumerate(decision.affinity.tolist()):
        choices = [first(row, case.num_choices) for row in affinity]
        order = range(case.num_tokens)
        if case.settings["batch_priority"]:
            order = first([max(row) for row in affinity], case.num_tokens)
        expected = seats_by_token(choices, order, case.num_experts, case.num_slots)
        assert seats_of(decision.routing.plan, group) == expected
        asked = [sum(row.count(expert) for row in choices) for expert in range(case.num_experts)]
        assert decision.routing.plan.demand[group].tolist() == asked


@given(cases(POSITION))
def test_positions_queue_as_in_a_plain_loop(case: Case) -> None:
    router = case.router()
    assert isinstance(router, PositionRouter)
    plan = router(case.tokens()).plan
    choices = router.choose(case.num_tokens, torch.device("cpu")).tolist()
    assert all(len({*row}) == case.num_choices for row in choices)
    expected = seats_by_token(choices, range(case.num_tokens), case.num_experts, case.num_slots)
    for group in range(case.num_groups):
        assert seats_of(plan, group) == expected
    _, combine = plan.dense()
    assert_close(combine.sum(3), plan.expert_share / case.num_choices)


@settings(max_examples=150)
@given(cases(EXPERT_CHOICE))
def test_experts_take_their_best_tokens_as_in_a_plain_loop(case: Case) -> None:
    decision = decision_of(case)
    plan = decision.routing.plan
    for group, columns in enumerate(decision.affinity.transpose(1, 2).tolist()):
        assert seats_of(plan, group) == [first(column, case.num_slots) for column in columns]
    assert plan.filled.all()


# What it counts.


@given(cases(GATED, normalize_combine=False))
def test_the_weight_of_an_expert_is_its_gate(case: Case) -> None:
    decision = decision_of(case)
    assert torch.equal(decision.weight, decision.gates * decision.seated)


@given(cases(TOKEN_CHOICE, **IN_DOUBLE, normalize_combine=True))
def test_normalised_weights_are_gates_over_those_of_all_choices(case: Case) -> None:
    decision = decision_of(case)
    for group in range(case.num_groups):
        for token, (affinity, gates) in enumerate(
            zip(decision.affinity[group].tolist(), decision.gates[group].tolist(), strict=True)
        ):
            # Also those that dropped the token: what is lost is not given to the others.
            total = sum(gates[expert] for expert in first(affinity, case.num_choices))
            assume(total > 1e-100)
            seated = decision.seated[group, token].tolist()
            expected = [gate / total * seat for gate, seat in zip(gates, seated, strict=True)]
            assert_close(decision.weight[group, token], torch.tensor(expected, dtype=torch.float64))


@given(cases(TOKEN_CHOICE, **IN_DOUBLE, **EVALUATED, dropless=True, normalize_combine=True))
def test_normalised_weights_sum_to_one_where_nothing_is_dropped(case: Case) -> None:
    weight = decision_of(case).weight
    assert_close(weight.sum(2), torch.ones_like(weight[:, :, 0]))


@given(cases(EXPERT_CHOICE, normalize_combine=True))
def test_normalised_weights_of_a_token_that_an_expert_takes_sum_to_one(case: Case) -> None:
    decision = decision_of(case)
    taken = decision.seated.any(2).to(decision.weight)
    assert_close(decision.weight.sum(2), taken)


@settings(max_examples=300)
@given(cases(ROUTERS, kinds=["extreme"], dtypes=[torch.float32, torch.bfloat16]))
def test_extreme_logits_give_finite_outputs_and_gradients(case: Case) -> None:
    layer, x = case.layer().float(), case.tokens().float().requires_grad_()
    y = layer(x)
    assert layer.routing is not None
    loss = (100 * y).sum() + sum(layer.routing.losses.values())
    loss.backward()
    tensors = {"y": y, "loss": loss, "x": x.grad, **layer.routing.measures}
    tensors |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    for name, tensor in tensors.items():
        assert tensor is None or tensor.isfinite().all(), name


# Mixtures.


@given(cases(MIXTURES))
def test_slots_are_shares_of_tokens_and_outputs_are_shares_of_slots(case: Case) -> None:
    dispatch, combine = routing_of(case).plan.dense()
    assert (dispatch >= 0).all()
    assert (combine >= 0).all()
    assert_close(dispatch.sum(1), torch.ones_like(dispatch[:, 0]))
    assert_close(combine.sum((2, 3)), torch.ones_like(combine[:, :, 0, 0]))


@given(cases(["uniform"], **IN_DOUBLE))
def test_uniform_shares_are_even(case: Case) -> None:
    dispatch, combine = routing_of(case).plan.dense()
    assert_close(dispatch, torch.full_like(dispatch, 1 / case.num_tokens))
    assert_close(combine, torch.full_like(combine, 1 / (case.num_experts * case.num_slots)))


@given(cases(["soft_identity"]), st.integers(1, 4))
def test_as_many_slots_as_tokens_make_the_identity(case: Case, num_slots: int) -> None:
    num_tokens = case.num_experts * num_slots
    case = replace(case, num_tokens=num_tokens).but(slots_per_expert=num_slots)
    for weight in routing_of(case).plan.dense():
        assert torch.equal(
            weight.flatten(2), torch.eye(num_tokens).to(weight).expand(case.num_groups, -1, -1)
        )


# Transport.


@settings(max_examples=30)
@given(cases(SINKHORN, kinds=["normal", "grid"], scorer="linear", **IN_DOUBLE, num_iterations=500))
def test_sinkhorn_plans_have_their_marginals(case: Case) -> None:
    case = case.but(projection_width=None, temperature=None)
    plan = decision_of(case).affinity
    assert (plan > 0).all()
    # Rows are exact after any number of iterations.
    for num_iterations in (1, 500):
        rows = decision_of(case.but(num_iterations=num_iterations)).affinity.sum(2)
        assert_close(rows, torch.ones_like(rows))
    even = torch.full_like(plan[:, 0], case.num_tokens / case.num_experts)
    assert_close(plan.sum(1), even, atol=1e-4, rtol=1e-4)


@given(cases(TRANSPORT, **IN_DOUBLE))
def test_residuals_are_those_of_the_plan(case: Case) -> None:
    decision = decision_of(case)
    share = case.num_tokens / case.num_experts
    groups = decision.affinity.tolist()
    rows = [max(abs(sum(row) - 1) for row in group) for group in groups]
    columns = [max(abs(sum(column) / share - 1) for column in zip(*group, strict=True)) for group in groups]
    measures = decision.routing.measures
    assert set(measures) == {"row_residual", "column_residual"}
    assert measures["row_residual"].item() == pytest.approx(sum(rows) / len(rows), abs=1e-9)
    assert measures["column_residual"].item() == pytest.approx(sum(columns) / len(columns), abs=1e-9)


# What outputs do not depend on.

NO_TIES: dict[str, Any] = {"kinds": ["normal"], **IN_DOUBLE, **EVALUATED, "min_experts": 2}


def apart(scores: Tensor, dim: int) -> bool:
    """Whether no two scores along a dimension are so near that rounding could change their order."""
    ordered = scores.sort(dim=dim).values
    return bool((ordered.diff(dim=dim) > 1e-9).all())


def assert_outputs_move_with_the_tokens(case: Case) -> None:
    layer, x = case.layer(), case.tokens()
    order = torch.randperm(case.num_tokens, generator=torch.Generator().manual_seed(case.seed))
    assert_close(layer(x[:, order]), layer(x)[:, order])


@given(cases(["soft", "uniform"], **NO_TIES))
def test_mixed_outputs_move_with_the_tokens(case: Case) -> None:
    assert_outputs_move_with_the_tokens(case)


@given(cases(BLIND_EXPERT_CHOICE, **NO_TIES))
def test_outputs_move_with_the_tokens_that_experts_take(case: Case) -> None:
    decision = decision_of(case)
    # The last that is taken and the first that is not: others may be equal, as the zeros of sparse plans.
    ordered = decision.affinity.sort(dim=1, descending=True).values
    assume(apart(ordered[:, case.num_slots - 1 : case.num_slots + 1], dim=1))
    assume(apart(decision.gates, dim=1))
    assert_outputs_move_with_the_tokens(case)


@given(cases(BLIND_TOKEN_CHOICE, **NO_TIES, batch_priority=True))
def test_outputs_move_with_the_tokens_when_the_surest_come_first(case: Case) -> None:
    affinity = decision_of(case).affinity
    assume(apart(affinity, dim=2) or case.num_choices == case.num_experts)
    assume(apart(affinity.amax(2), dim=1))
    assert_outputs_move_with_the_tokens(case)


@given(cases(BLIND_TOKEN_CHOICE, **NO_TIES, dropless=True))
def test_outputs_move_with_the_tokens_when_nothing_is_dropped(case: Case) -> None:
    assume(apart(decision_of(case).affinity, dim=2))
    assert_outputs_move_with_the_tokens(case)


@given(cases(ROUTERS, **IN_DOUBLE))
def test_a_group_does_not_see_the_others(case: Case) -> None:
    layer, x = case.layer(), case.tokens()
    others = 3 * torch.randn_like(x)
    for group in range(case.num_groups):
        mixed = others.index_copy(0, torch.tensor([group]), x[group : group + 1])
        torch.manual_seed(1)
        y = layer(x)
        torch.manual_seed(1)  # the same noise
        assert_close(layer(mixed)[group], y[group], atol=1e-12, rtol=1e-12)


# The sparse path.


def by_definition(layer: rb.MoE, x: Tensor) -> Tensor:
    dispatch, combine = layer.router(x).plan.dense()
    experts = layer.experts
    slots = torch.einsum("gsec,gsd->gecd", dispatch, x)
    hidden = experts.act(torch.einsum("gecd,edh->gech", slots, experts.w1) + experts.b1[:, None])
    slots = torch.einsum("gech,ehd->gecd", hidden, experts.w2) + experts.b2[:, None]
    return torch.einsum("gsec,gecd->gsd", combine, slots)


@given(cases(ROUTERS, **IN_DOUBLE))
def test_slots_hold_what_the_dense_definition_says_and_empty_ones_nothing(case: Case) -> None:
    plan, x = routing_of(case).plan, case.tokens()
    slots = plan.dispatch(x).unflatten(1, (case.num_groups, case.num_slots)).transpose(0, 1)
    assert_close(slots, torch.einsum("gsec,gsd->gecd", plan.dense()[0], x), atol=1e-12, rtol=1e-12)


def outputs_and_gradients(
    layer: rb.MoE, forward: Callable[[Tensor], Tensor], x: Tensor
) -> dict[str, Tensor | None]:
    layer.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    y = forward(x)
    (y * torch.arange(y.numel()).view_as(y).cos()).sum().backward()
    return {"y": y, "x": x.grad, **{name: parameter.grad for name, parameter in layer.named_parameters()}}


@settings(max_examples=150)
@given(cases(ROUTERS, kinds=["normal", "grid"], **IN_DOUBLE))
def test_the_layer_is_its_dense_definition(case: Case) -> None:
    layer, x = case.layer(), case.tokens()
    actual = outputs_and_gradients(layer, layer, x)
    expected = outputs_and_gradients(layer, lambda x: by_definition(layer, x), x)
    for name, tensor in actual.items():
        assert_close(
            tensor, expected[name], atol=1e-9, rtol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )


@given(cases(ROUTERS))
def test_the_same_seed_gives_the_same_bits(case: Case) -> None:
    one, other = (
        outputs_and_gradients(layer, layer, case.tokens().double()) for layer in (case.layer(), case.layer())
    )
    for name, tensor in one.items():
        assert tensor is other[name] or torch.equal(tensor, other[name]), name  # pyright: ignore


# Training and evaluation.

AS_IN_TRAINING = {"top_k_eval": None, "capacity_factor_eval": None, "dropless": False}


@given(cases(SPARSE, training=[True]))
def test_settings_of_evaluation_change_no_training(case: Case) -> None:
    assert routings_are_equal(routing_of(case), routing_of(case.but(**AS_IN_TRAINING)))


@settings(max_examples=150)
@given(cases(SPARSE, **EVALUATED))
def test_evaluation_is_that_of_a_router_with_its_settings(case: Case) -> None:
    own = case.but(**AS_IN_TRAINING, top_k=case.num_choices, capacity=case.num_slots)
    assert routings_are_equal(routing_of(case), routing_of(own))


@given(cases(TOKEN_CHOICE + POSITION, **EVALUATED, dropless=True))
def test_dropless_evaluation_drops_nothing(case: Case) -> None:
    plan = routing_of(case).plan
    assert torch.equal(plan.load, plan.demand)
    assert (plan.served == case.num_choices).all()
    assert not plan.dropped.any()


@given(cases(ROUTERS, **EVALUATED))
def test_evaluation_changes_no_state(case: Case) -> None:
    layer = case.layer()
    before = copy.deepcopy(layer.state_dict())
    layer(case.tokens().double())
    after = layer.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@given(cases(RANDOM_IN_TRAINING, noise_std=1.0, **EVALUATED))
def test_evaluation_has_no_noise(case: Case) -> None:
    assert routings_are_equal(routing_of(case), routing_of(case.but(noise_std=0.0)))
    router = case.router()
    state = torch.get_rng_state()
    router(case.tokens())
    assert torch.equal(torch.get_rng_state(), state)
