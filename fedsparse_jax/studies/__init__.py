"""Questions answered by one or many runs."""

from fedsparse_jax.studies.audit_run import AuditOptions, audit_run
from fedsparse_jax.studies.compare_methods import comparison_table, run_comparison
from fedsparse_jax.studies.evaluate_run import evaluate_run
from fedsparse_jax.studies.export_run import export_run
from fedsparse_jax.studies.intervals import half_width, mean_with_interval
from fedsparse_jax.studies.predict_scans import predict_scans
from fedsparse_jax.studies.shadow_models import train_shadows
from fedsparse_jax.studies.sparsity_vs_leakage import study_leakage
