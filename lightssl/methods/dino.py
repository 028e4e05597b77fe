"""DINO: self-distillation with no labels (Caron et al. 2021, arXiv 2104.14294), on SSLight's views."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from lightssl.backbones.base import Backbone
from lightssl.chains import Chain
from lightssl.distributed import mean_over_processes
from lightssl.heads import DINOHead
from lightssl.losses.cross_view import cross_view_entropy
from lightssl.losses.dino import dino_targets
from lightssl.methods.base import Branch, Method, ema_update
from lightssl.schedules import cosine, linear
from lightssl.types import Clock, NonNegative, Positive, PositiveInt, Share, StepOutput
from lightssl.units import Duration

_PROJECTOR = Chain("projector", layers=4)  # not in NASiam (arXiv 2302.00059): as long as MoCo's there


class DINO(Method):
    """A student learns to predict, from every view, what its own moving average sees in the other global views.

    The defaults are SSLight's for convolutional networks.

    Args:
        backbone: Network to train.
        weights: Of the mean global-global and the mean global-local loss term.
        hidden: Width of the head's hidden layers.
        bottleneck: Width in which the head's features are L2-normalised.
        prototypes: K, the number of outputs.
        head_batch_norm: Batch norm in the head: for convolutional networks, not for transformers. A chain has its own.
        freeze_gain: Keep the prototypes at unit length.
        freeze_prototypes: How long the last layer stays as it was initialised.
        student_temperature: Of the student's softmax.
        teacher_temperature: Of the teacher's softmax, after its warm-up. Lower is sharper.
        teacher_temperature_start: Before its warm-up.
        teacher_temperature_warmup: Length of the linear ramp between the two.
        teacher_momentum: Of the teacher's moving average at the start; follows a cosine.
        teacher_momentum_end: At the end.
        center_momentum: Of the moving average of the teacher's scores.
        projector: Operations of a chain in place of the hidden layers.
    """

    center: Tensor  # [K]

    def __init__(
        self,
        backbone: Backbone,
        weights: tuple[float, float],
        *,
        hidden: PositiveInt = 2048,
        bottleneck: PositiveInt = 256,
        prototypes: PositiveInt = 4096,
        head_batch_norm: bool = True,
        freeze_gain: bool = True,
        freeze_prototypes: Duration = Duration(1, "epochs"),
        student_temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.07,
        teacher_temperature_start: Positive = 0.04,
        teacher_temperature_warmup: Duration = Duration(50, "epochs"),
        teacher_momentum: Share = 0.996,
        teacher_momentum_end: Share = 1.0,
        center_momentum: NonNegative = 0.9,
        projector: Annotated[str, _PROJECTOR] | None = None,
    ) -> None:
        super().__init__()
        features = backbone.feature_width
        head = DINOHead(
            features,
            hidden=hidden,
            bottleneck=bottleneck,
            prototypes=prototypes,
            batch_norm=head_batch_norm,
            freeze_gain=freeze_gain,
            layers=None if projector is None else _PROJECTOR.build(projector, features, hidden, hidden),
        )
        self.student = Branch(backbone, head)
        # The teacher starts as the student, head included: published code differs there by accident.
        self.teacher = self.student.momentum_copy()
        self.register_buffer("center", torch.zeros(prototypes))
        self.weights = weights
        self.freeze_prototypes = freeze_prototypes
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.teacher_temperature_start = teacher_temperature_start
        self.teacher_temperature_warmup = teacher_temperature_warmup
        self.teacher_momentum = teacher_momentum
        self.teacher_momentum_end = teacher_momentum_end
        self.center_momentum = center_momentum
        self._mean_scores: list[Tensor] = []  # [K] of each pass of this step, for the centre

    @property
    def branch(self) -> Branch:
        """The student: the published evaluations use it, not the teacher."""
        return self.student

    def _temperature_at(self, clock: Clock) -> float:
        ramp = clock.steps(self.teacher_temperature_warmup)
        return linear(self.teacher_temperature_start, self.teacher_temperature, clock.step / max(1, ramp))

    def _momentum_at(self, clock: Clock) -> float:
        return cosine(self.teacher_momentum, self.teacher_momentum_end, clock.fraction)

    def step(self, views: Sequence[Tensor], clock: Clock) -> StepOutput:
        """Compute the loss of one batch: see :meth:`Method.step`."""
        temperature = self._temperature_at(clock)
        with torch.no_grad():
            _, teacher_scores = self.teacher(views[:1])  # [G, B, K]
            targets = dino_targets(teacher_scores, self.center, temperature)
        features, student_scores = self.student(views)  # [V, B, D], [V, B, K]
        loss = cross_view_entropy(
            student_scores,
            targets,
            global_views=len(targets),
            temperature=self.student_temperature,
            weights=self.weights,
        )
        self._mean_scores.append(teacher_scores.float().mean(dim=(0, 1)))
        return StepOutput(
            loss=loss,
            features=features[0].detach(),
            logs={
                "teacher_entropy": torch.special.entr(targets).sum(dim=-1).mean(),
                "teacher_temperature": temperature,
                "teacher_momentum": self._momentum_at(clock),
            },
        )

    def after_backward(self, clock: Clock) -> None:
        """Keep the prototypes where they started for the first epoch."""
        if clock.step < clock.steps(self.freeze_prototypes):
            for parameter in self.student.head.prototypes.parameters():  # type: ignore[union-attr]
                parameter.grad = None

    @torch.no_grad()
    def after_step(self, clock: Clock) -> None:
        """Move the centre towards the teacher's scores, and the teacher towards the student."""
        if self._mean_scores:
            mean = mean_over_processes(torch.stack(self._mean_scores).mean(dim=0))
            self.center.lerp_(mean.to(self.center.dtype), 1.0 - self.center_momentum)
        self._mean_scores = []
        ema_update(self.teacher, self.student, self._momentum_at(clock))
