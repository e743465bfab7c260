import socket,time
cs=[]
for i in range(400):
    try:
        s=socket.create_connection(('127.0.0.1',7421),timeout=2); cs.append(s)
    except OSError as e: print(i,e); break
ok=0; st={}
for s in cs:
    s.settimeout(1)
    try:
        s.sendall(b'GET /get?id=a HTTP/1.1\r\nHost: x\r\n\r\n'); d=s.recv(4096); k=d[:12]
    except OSError as e: k=type(e).__name__
    st[k]=st.get(k,0)+1
print(st)
for s in cs: s.close()
time.sleep(.3)
s=socket.create_connection(('127.0.0.1',7421),timeout=2); s.sendall(b'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n'); print(s.recv(4096)[:15])
