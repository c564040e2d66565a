"""How good a system is: translate a test corpus, score it, write what was found."""

from hf_nmt.evaluation.suite import Corpus, Evaluation, System, corpus_of, evaluate, run_model, write_evaluation

__all__ = ["Corpus", "Evaluation", "System", "corpus_of", "evaluate", "run_model", "write_evaluation"]
