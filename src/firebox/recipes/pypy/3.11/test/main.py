print('ok'.upper())
