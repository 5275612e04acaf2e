"""NoLiMa: a needle whose words the question does not share (Modarressi et al. 2025, arXiv 2502.05167)."""
