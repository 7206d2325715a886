'OK'
