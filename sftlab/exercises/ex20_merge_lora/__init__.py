"""Is a merged model still the same model?"""

MINUTES = 10  # on two cores with SmolLM2-135M
