ln -s /opt/sac/bin/sac2c /usr/local/bin/sac2c
