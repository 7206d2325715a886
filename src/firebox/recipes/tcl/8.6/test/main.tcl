puts [string toupper ok]
