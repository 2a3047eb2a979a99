"""Files of a run in, figures, tables and HTML out; the only room with matplotlib."""

from fedsparse_jax.reporting.audit_tables import audit_tables
from fedsparse_jax.reporting.report import write_report
from fedsparse_jax.reporting.run_files import read_run_files
from fedsparse_jax.reporting.style import render_figure
from fedsparse_jax.reporting.markdown import markdown_table
