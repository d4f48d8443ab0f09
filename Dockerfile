FROM python:3.11-slim
RUN useradd --create-home tandem
WORKDIR /srv/tandem
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir torch==2.13.0 \
 && pip install --no-cache-dir -r requirements.lock
COPY app app
COPY retrieval retrieval
COPY tuning tuning
COPY evals evals
COPY migrations migrations
RUN pip install --no-cache-dir --no-deps . && mkdir /data && chown tandem /data
USER tandem
ENV TANDEM_HOME=/data
RUN tandem models pull
VOLUME /data
EXPOSE 8000
CMD ["tandem", "serve", "--host", "0.0.0.0"]
