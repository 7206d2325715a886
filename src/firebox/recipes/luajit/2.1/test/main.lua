print(string.upper('ok'))
