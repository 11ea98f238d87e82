"""Where people's work lives: one file per other thing, each imported only when it is asked for."""
