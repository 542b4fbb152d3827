# %% [markdown]
# Prediction, before any cell of five or six classes is run (but for 60 networks at K = 5, L = 3, s_0 = 0.1, of which 3 collapsed).
# Starts: balanced factors of Z_0 with entries N(0, s_0²/K). Seen so far: K = 4 at L = 3 (s_0 = 1 … 0.01) and L = 4 (1 … 0.1).
#
# Share of collapse ~ s_0^{q N}, q = 1 − 2/L, N = K(K−3)/2 = 2, 5, 9 at K = 4, 5, 6. Others: all symmetric modes amplified while small,
# (K+1)(K−2)/2 = 5, 9, 14; zero-diagonal and class imbalance, K(K−3)/2 + 2(K−1) = 8, 13, 19; K − 2 = 2, 3, 4.
# Exponents q N: L = 3: 5/3 and 3; L = 4: 5/2 and 9/2; L = 6: 10/3 and 6, at K = 5 and 6.
#
# Rule 1 (exponent): weighted line in logs through the cells with share below 0.05 and at least 50 hits; each of the K = 5, 6 exponents
# over q N lies within 0.3 of 1, the farther end of its 95% interval included.
# Rule 2 (sharper, free of logarithms and of scales that are not small): at equal s_0 and L the slope of log share_K against log share_4
# is K(K−3)/4 = 2.5 and 4.5 (others: 1.8 and 2.8; 1.6 and 2.4; 1.5 and 2), within 20%, through the cells with at least 50 hits in both
# and a share_K below 0.2.
# K = 3: every start collapses at every scale and depth.
