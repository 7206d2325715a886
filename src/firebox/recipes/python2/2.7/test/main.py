print 'ok'.upper()
