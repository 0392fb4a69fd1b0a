"""Operations where time is spent: once in plain torch, once as a compiled kernel with its exact backward."""
