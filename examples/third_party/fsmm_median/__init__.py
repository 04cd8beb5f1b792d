"""An example of a package that extends fsmm: a method, an encoder and a data set."""
