"""Fits the classifier that tells radiographs of limbs from other images, on their embeddings.

Legend: N images, D numbers of an embedding.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from xray.network.embedding_space import EmbeddingArray
from xray.network.ood import LimbClassifier

FloatArray = npt.NDArray[np.float64]

FOLDS = 5
"""Number of folds for cross-validating the limit."""
LIMBS_IN_SCOPE = 0.995
"""Share of limbs within the limit of a classifier that was fitted without their study."""
LIMIT_RANGE = (0.5, 0.99)
"""Smallest and largest limit. Below the smallest, an image that is more likely a limb than not would be refused; above
the largest, nothing would be where classifiers separate the two kinds completely."""
INVERSE_PENALTY = 1000.0
"""Inverse strength of the L2 penalty on the weights, whose inputs are embeddings of length 1."""


def fit_limb_classifier(
    limbs_ND: EmbeddingArray, limb_groups: Sequence[str], others_ND: EmbeddingArray, other_groups: Sequence[str]
) -> LimbClassifier:
    """Fit a logistic regression that counts both kinds of image alike, and its limit by cross-validation over groups.

    Args:
        limb_groups: for each limb, the key of its study; all variants of a radiograph have the same.
        other_groups: for each other image, the key of its file.
    """
    embeddings_ND = np.concatenate([limbs_ND, others_ND]).astype(np.float64)
    targets_N = np.repeat([0, 1], [len(limbs_ND), len(others_ND)])
    groups = [f"limb {each}" for each in limb_groups] + [f"other {each}" for each in other_groups]
    groups_N = np.unique(groups, return_inverse=True)[1]
    # A penalty on standardized numbers would let those count that hardly vary, so the embeddings are used as they are.
    regression = LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=1000)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    held_out_N2 = cross_val_predict(
        regression, embeddings_ND, targets_N, groups=groups_N, cv=folds, method="predict_proba"
    )
    limit = float(np.clip(np.quantile(held_out_N2[targets_N == 0, 1], LIMBS_IN_SCOPE), *LIMIT_RANGE))
    regression.fit(embeddings_ND, targets_N)
    weights_D: EmbeddingArray = np.ascontiguousarray(regression.coef_[0], np.float32)
    return LimbClassifier(weights_D, float(regression.intercept_[0]), limit)
