"""Reports as files: tables for terminals and Markdown, one offline HTML page, charts."""

from keras_robust.evaluation.reporting.forms import render
from keras_robust.evaluation.reporting.sections import sections
from keras_robust.evaluation.reporting.tables import pairs_table, table
from keras_robust.evaluation.reporting.write import write, write_comparison, write_figure

__all__ = ["pairs_table", "render", "sections", "table", "write", "write_comparison", "write_figure"]
