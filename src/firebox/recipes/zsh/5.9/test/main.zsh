word=ok; print ${(U)word}
