"""How good a system is: translate a test corpus, score it, write what was found."""

from hf_nmt.evaluation.corpora import Corpus, corpus_of
from hf_nmt.evaluation.folders import write_evaluation
from hf_nmt.evaluation.scores import Evaluation, evaluate
from hf_nmt.evaluation.systems import System, run_model

__all__ = ["Corpus", "Evaluation", "System", "corpus_of", "evaluate", "run_model", "write_evaluation"]
