ln -s /opt/mercury/bin/mmc /usr/local/bin/mmc
