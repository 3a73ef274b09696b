"""Which way a metric gets worse, by its name: one table, so that an improvement asks for nothing.

The names are those of scikit-learn's scorers and what training libraries and serving jobs usually log. A name that the
table does not know is watched both ways.
"""

import functools
import re

from actors.drift.interface import Direction


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Worse when it falls. Scorers of scikit-learn that begin with `neg_` fall too, whatever follows.
_FALLS = _names(
    """
    accuracy acc balanced_accuracy top_k_accuracy top_accuracy exact_match subset_accuracy hit_rate hits hit_ratio
    precision recall sensitivity specificity tpr tnr ppv npv true_positive_rate true_negative_rate coverage
    f1 f1_score f2 f_score fbeta f_beta f_measure dice dice_score iou miou jaccard jaccard_score
    auc auroc roc_auc auc_roc pr_auc auc_pr auprc average_precision ap map mean_average_precision
    ndcg dcg mrr mean_reciprocal_rank reciprocal_rank gini lift ks
    matthews_corrcoef mcc cohen_kappa kappa quadratic_weighted_kappa youden informedness
    r2 r2_score r_squared adjusted_r2 explained_variance explained_variance_score d2 d2_score
    d2_log_loss_score d2_brier_score d2_absolute_error_score d2_pinball_score d2_tweedie_score
    correlation pearson pearson_r pearsonr spearman spearmanr kendall kendall_tau concordance concordance_index c_index
    bleu rouge rouge1 rouge2 rougel rouge_1 rouge_2 rouge_l meteor chrf bertscore win_rate pass_rate
    rand_score adjusted_rand_score mutual_info_score adjusted_mutual_info_score normalized_mutual_info_score
    homogeneity_score completeness_score v_measure_score fowlkes_mallows_score silhouette silhouette_score
    positive_likelihood_ratio likelihood log_likelihood ssim psnr
    throughput uptime availability success_rate conversion_rate click_through_rate ctr
    """
)
# Worse when it rises.
_RISES = _names(
    """
    loss log_loss logloss nll cross_entropy crossentropy hinge_loss hinge focal_loss perplexity ppl
    error err error_rate error_share errors misses miss_rate misclassification misclassification_rate zero_one_loss
    false_positive_rate fpr false_negative_rate fnr false_discovery_rate fdr false_alarm_rate eer hamming_loss
    mse rmse mae mape smape wape wmape msle rmsle mase mdae medae nrmse rmspe mpe
    mean_squared_error root_mean_squared_error mean_absolute_error median_absolute_error mean_absolute_percentage_error
    mean_squared_log_error root_mean_squared_log_error max_error pinball_loss quantile_loss huber huber_loss deviance
    mean_poisson_deviance mean_gamma_deviance mean_tweedie_deviance crps
    brier brier_score brier_score_loss calibration_error ece mce expected_calibration_error
    wer cer word_error_rate character_error_rate ter fid
    latency latency_ms latency_s response_time response_time_ms duration duration_ms duration_s wait_time queue_time
    timeout_rate timeouts failure_rate failures rejected drop_rate bounce_rate
    psi kl kl_divergence js_divergence wasserstein drift drift_score missing_rate null_rate missing nulls
    cost negative_likelihood_ratio
    """
)

# Words that only name the rows or the kind of average; removed at the end of a name. Anything may precede them.
_AROUND = _names(
    """
    val valid validation test train training eval evaluation holdout dev live online offline prod shadow cv oof
    mean avg average median micro macro weighted samples binary ovr ovo ovr_weighted ovo_weighted min max std total overall
    epoch step batch
    """
)
_NUMBER = re.compile(r"\d+|p\d{1,3}|at|k")  # recall_at_5, top_5_accuracy, latency_p99
_UNIT = re.compile(r"_(ms|us|ns|s|sec|seconds|millis|pct|percent)$")


# A status or a reload asks for each metric of thousands of models: 5 to 15 us without the cache.
@functools.lru_cache(maxsize=4096)
def usual_direction(metric: str) -> Direction:
    """Return in which direction a metric of this name gets worse; "both" where the name does not say.

    >>> [usual_direction(name) for name in ("val_roc_auc", "p99_latency_ms", "neg_root_mean_squared_error", "page_views")]
    ['down', 'up', 'down', 'both']
    """
    name = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", metric.split("@", maxsplit=1)[0])
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").split("_")
    if "neg" in words[:2] and len(words) > 1:
        return "down"
    for candidate in _candidates(words):
        if candidate in _FALLS:
            return "down"
        if candidate in _RISES:
            return "up"
    return "both"


def _candidates(words: list[str]) -> list[str]:
    """Return the name, and what it is without numbers, units and words around it, the longest first."""
    bare = [word for word in _UNIT.sub("", "_".join(words)).split("_") if not _NUMBER.fullmatch(word)]
    while len(bare) > 1 and bare[-1] in _AROUND:
        bare.pop()
    return ["_".join(words), *("_".join(bare[i:]) for i in range(len(bare)))]
