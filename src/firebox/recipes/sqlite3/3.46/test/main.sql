SELECT upper('ok');
