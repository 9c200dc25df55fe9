"""The loss in each framework: import the module that is named as the framework is."""
