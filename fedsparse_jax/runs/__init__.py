"""The host's loop, and everything a run folder holds."""

from fedsparse_jax.runs.evaluation import Evaluation, evaluate_server, predict_test
from fedsparse_jax.runs.experiment import Batching, Cohorts, Execution, Experiment, LeakageLog, ModelChoice, Output
from fedsparse_jax.runs.loop import fold_rounds, run_experiment
from fedsparse_jax.runs.metrics_log import read_records
from fedsparse_jax.runs.model_choice import best_record
from fedsparse_jax.runs.records import RoundRecord
from fedsparse_jax.runs.round import Runner, initial_server, jit_algorithm, make_runner, play_round, sample_cohort
from fedsparse_jax.runs.run_dir import stored_config
