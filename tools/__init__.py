"""What authors use: outputs, pages, slides, courses, benchmarks. Started from the checkout: ``python -m tools.publish``."""
