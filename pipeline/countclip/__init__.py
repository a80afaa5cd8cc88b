"""Can CLIP be taught to count to ten? papers/countclip.md; Paiss et al. (2023), 'Teaching CLIP to Count to Ten'."""
