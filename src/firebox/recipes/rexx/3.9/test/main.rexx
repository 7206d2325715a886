say translate('ok')
