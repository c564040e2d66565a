"""Models of Marian NMT (Junczys-Dowmunt et al. 2018) as models of Transformers."""
