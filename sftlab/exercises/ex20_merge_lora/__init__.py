"""Is a merged model still the same model?"""

MINUTES = 5  # on two cores with SmolLM2-135M
