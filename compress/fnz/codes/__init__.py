"""Codes of rows of symbols: ANS, Huffman, codebooks, positions of zeros."""
